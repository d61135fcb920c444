// A second process for the tests: sends or receives until it is told or made to end.
//
//   transport_peer send TRANSPORTS ADDRESS REQUEST BYTES COUNT   COUNT 0: for ever; 4 sends at a time; prints how many
//                                                                ended well, stays until its standard input ends
//   transport_peer receive TRANSPORTS REQUEST SLOTS              prints its address; frees each message as it comes
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <string>

#include "common/transport/credit.h"
#include "transport_test_kit.h"

namespace scd {
namespace {

using namespace testing_kit;

TransportOptions options_for(const std::string& transports) {
  TransportOptions options;
  options.listen_host = "127.0.0.1";
  options.transports = transports;
  options.slot_bytes = 4 << 20;
  options.slots = 8;
  options.peer_timeout = 500ms;
  return options;
}

// What it sent may still be on its way: a sender that leaves at once takes its shared memory with it.
void wait_for_end() {
  std::string end;
  std::getline(std::cin, end);
}

int send(char** args) {
  const auto transport = make_transport(options_for(args[0]));
  const LeaseKey key{std::strtoull(args[2], nullptr, 10), 1};
  const auto bytes = std::strtoull(args[3], nullptr, 10);
  const auto count = std::strtoull(args[4], nullptr, 10);
  SendCredit window(4);
  std::atomic<uint64_t> good{0};
  for (uint32_t i = 0; count == 0 || i < count; ++i) {
    if (!window.take(Clock::now() + kPatience).ok()) return 2;
    auto send = make_send(args[1], key, i, bytes);
    send.job.on_sent = [&](const Result<SendReport>& result) {
      good += result.ok() ? 1 : 0;
      window.give(1);
    };
    if (!transport->send(std::move(send.job)).ok()) return 3;
  }
  for (int i = 0; i < 4; ++i) {
    if (!window.take(Clock::now() + kPatience).ok()) return 4;
  }
  std::cout << good.load() << std::endl;
  wait_for_end();
  return 0;
}

int receive(char** args) {
  const auto transport = make_transport(options_for(args[0]));
  Lease lease = transport
                    ->open_lease({.key = {std::strtoull(args[1], nullptr, 10), 1},
                                  .token = kToken,
                                  .slots = std::strtoull(args[2], nullptr, 10),
                                  .on_message = [](const ReceivedMessage&) {},
                                  .on_failure = [](const Failure&) {}})
                    .value_or_throw();
  std::cout << transport->address() << std::endl;
  wait_for_end();
  return 0;
}

}  // namespace
}  // namespace scd

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "send" && argc == 7) return scd::send(argv + 2);
  if (mode == "receive" && argc == 5) return scd::receive(argv + 2);
  return 1;
}
