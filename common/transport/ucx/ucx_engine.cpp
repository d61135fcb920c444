#include "common/transport/ucx/ucx_engine.h"

#include <algorithm>

#include "common/transport/ucx/socket_address.h"

namespace scd {
namespace {

// While transfers are under way the next event is microseconds off: less than falling asleep and waking up costs.
constexpr std::chrono::microseconds kSpin{20};
constexpr int kProgressBurst = 64;
constexpr std::chrono::milliseconds kFlushLimit{200};
constexpr std::chrono::milliseconds kCloseLimit{1000};

}  // namespace

UcxEngine::UcxEngine(const Shared& shared) : shared_(shared), context_(shared.options) {
  worker_ = std::make_unique<UcxWorker>(context_);
  receiver_ = std::make_unique<UcxReceiver>(
      UcxReceiver::Args{worker_->handle(), shared.pool, reaper_, shared.options, shared.connections_refused});
  connector_ = std::make_unique<UcxConnector>(worker_->handle(), shared.sender, reaper_, shared.options);
  listener_ = std::make_unique<UcxListener>(*worker_, shared.options, receiver_->connection_handler());
  address_ = advertised_address(shared.options.advertise, shared.options.listen_host, listener_->port());
  shared.waiter.watch(worker_->event_descriptor());
}

UcxEngine::~UcxEngine() {
  listener_.reset();
  shared_.sender.close();
  connector_->flush();
  drain(kFlushLimit, [&] { return reaper_.idle(); });
  connector_->close();
  receiver_->close();
  drain(kCloseLimit, [&] { return reaper_.idle() && connector_->closed() && receiver_->closed(); });
  worker_.reset();
}

template <class IsDone>
void UcxEngine::drain(std::chrono::milliseconds limit, IsDone done) {
  const auto deadline = Clock::now() + limit;
  while (!done() && Clock::now() < deadline) {
    progress();
    poll(Clock::now());
  }
}

bool UcxEngine::progress() {
  int rounds = 0;
  while (rounds < kProgressBurst && ucp_worker_progress(worker_->handle()) != 0) ++rounds;
  return rounds > 0;
}

void UcxEngine::poll(Clock::time_point now) {
  shared_.sender.poll(now);
  connector_->poll(now);
  receiver_->poll(now);
  reaper_.poll();
}

void UcxEngine::run(const std::stop_token& stop) {
  auto spin_until = Clock::now();
  while (!stop.stop_requested()) {
    const bool active = progress();
    const auto now = Clock::now();
    poll(now);
    if (active) spin_until = now + kSpin;
    if (active || (now < spin_until && (connector_->busy() || receiver_->busy()))) continue;
    sleep();
  }
}

void UcxEngine::sleep() {
  // Refused while events are waiting, so none is lost between looking and sleeping.
  if (ucp_worker_arm(worker_->handle()) == UCS_ERR_BUSY) return;
  const auto wakeup = std::min(shared_.sender.next_wakeup(), receiver_->next_wakeup());
  shared_.waiter.wait_until(wakeup);
}

}  // namespace scd
