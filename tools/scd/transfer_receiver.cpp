#include "tools/scd/transfer_receiver.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <iostream>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/threads/bounded_queue.h"
#include "common/transport/transport.h"

namespace scd {
namespace {

constexpr std::chrono::seconds kPatience{30};

// Tells the sender of freed messages in portions, so that telling costs little.
class CreditPrinter {
 public:
  CreditPrinter(uint64_t messages, uint64_t portion) : left_(messages), portion_(portion) {}

  void freed_one() {
    ++freed_;
    --left_;
    if (freed_ < portion_ && left_ > 0) return;
    const bool last = left_ == 0;
    std::cout << "credit " << std::exchange(freed_, 0) << std::endl;
    if (last) done_.set_value();
  }
  void wait() {
    if (done_.get_future().wait_for(kPatience) != std::future_status::ready) {
      throw Error(ErrorCode::kDeadlineExceeded, "the messages did not come within 30 s");
    }
  }

 private:
  uint64_t left_;
  const uint64_t portion_;
  uint64_t freed_ = 0;
  std::promise<void> done_;
};

void receive(Transport& transport, LeaseKey key, uint64_t messages, const TransferReceiverOptions& options) {
  const size_t slots = options.transport.slots;
  CreditPrinter credit(messages, std::max<uint64_t>(1, slots / 4));
  BoundedQueue<ReceivedMessage> inbox(slots);
  LeaseRequest request{
      .key = key, .token = {}, .slots = slots, .on_message = {}, .on_failure = [](const Failure& failure) {
        std::cerr << failure.message << "\n";
      }};
  if (options.verify) {
    request.on_message = [&](ReceivedMessage message) { inbox.try_push(std::move(message)); };
  } else {
    request.on_message = [&](ReceivedMessage message) {
      { const ReceivedMessage freed = std::move(message); }
      credit.freed_one();
    };
  }
  const Lease lease = transport.open_lease(std::move(request)).value_or_throw();
  std::cout << "ready" << std::endl;
  if (!options.verify) return credit.wait();
  for (uint64_t i = 0; i < messages; ++i) {
    auto message = inbox.pop_until(std::chrono::steady_clock::now() + kPatience);
    if (!message) throw Error(ErrorCode::kDeadlineExceeded, "no message within 30 s");
    message->verify_payload().value_or_throw();
    message.reset();
    credit.freed_one();
  }
}

}  // namespace

void run_transfer_receiver(const TransferReceiverOptions& options) {
  const auto transport = make_transport(options.transport);
  std::cout << transport->address() << std::endl;
  for (std::string word; std::cin >> word;) {
    uint64_t request = 0;
    uint64_t messages = 0;
    if (word != "receive" || !(std::cin >> request >> messages)) {
      throw Error(ErrorCode::kInvalidArgument, "transfer-receiver: unknown command '" + word + "'");
    }
    receive(*transport, {request, 1}, messages, options);
  }
}

}  // namespace scd
