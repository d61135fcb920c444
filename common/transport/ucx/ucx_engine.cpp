#include "common/transport/ucx/ucx_engine.h"

#include <sched.h>

#include <algorithm>

#include "common/base/send_memory.h"
#include "common/transport/ucx/socket_address.h"

namespace scd {
namespace {

// While messages stream, the next event is microseconds off: less than falling asleep and being woken costs both sides.
constexpr std::chrono::microseconds kSpin{100};
constexpr std::chrono::microseconds kKeepCore{10};  // a yield may cost a whole time slice
constexpr int kProgressBurst = 64;
// UCX takes connections down in steps that announce themselves by no event.
constexpr std::chrono::milliseconds kCloseStep{1};
constexpr std::chrono::milliseconds kFlushLimit{200};
constexpr std::chrono::milliseconds kCloseLimit{1000};

}  // namespace

UcxEngine::UcxEngine(const Shared& shared)
    : shared_(shared),
      context_(shared.options),
      slots_(context_, shared.pool.memory(), "staging slots"),
      sends_(context_, SendMemory::of_process().region(), "payloads to send") {
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
  auto last_active = Clock::time_point{};
  bool streaming = false;  // events follow each other closely
  while (!stop.stop_requested()) {
    const bool active = progress();
    const auto now = Clock::now();
    poll(now);
    if (active) {
      streaming = now - last_active < kSpin;
      last_active = now;
    } else if (streaming && now - last_active < kSpin) {
      if (now - last_active > kKeepCore) sched_yield();  // whoever makes or takes the messages may need this core
    } else {
      sleep(stop);
    }
  }
}

void UcxEngine::sleep(const std::stop_token& stop) {
  shared_.waiter.prepare();
  poll(Clock::now());  // what other threads left before they saw us sleep
  // Arming is refused while events are waiting, so none is lost between looking and sleeping.
  if (stop.stop_requested() || ucp_worker_arm(worker_->handle()) == UCS_ERR_BUSY) return shared_.waiter.cancel();
  auto wakeup = std::min(shared_.sender.next_wakeup(), receiver_->next_wakeup());
  if (!reaper_.idle() || receiver_->closing() || connector_->closing()) {
    wakeup = std::min(wakeup, Clock::now() + kCloseStep);
  }
  shared_.waiter.wait_until(wakeup);
}

}  // namespace scd
