#include "common/transport/ucx/event_waiter.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "common/base/check.h"
#include "common/base/error.h"

namespace scd {

FileDescriptor::FileDescriptor(int descriptor, const char* what) : descriptor_(descriptor) {
  if (descriptor >= 0) return;
  throw Error(ErrorCode::kResourceExhausted, std::string(what) + ": " + std::strerror(errno));
}
FileDescriptor::~FileDescriptor() { close(descriptor_); }

EventWaiter::EventWaiter()
    : epoll_(epoll_create1(EPOLL_CLOEXEC), "epoll_create1"),
      event_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd"),
      timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), "timerfd_create") {
  watch(event_.get());
  watch(timer_.get());
}

void EventWaiter::watch(int descriptor) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  SCD_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, descriptor, &event) == 0, "epoll_ctl of an open descriptor");
}

// Sequentially consistent on both sides: either the waker sees the sleeper, or the sleeper sees what was left for it.
void EventWaiter::prepare() { asleep_.store(true, std::memory_order_seq_cst); }
void EventWaiter::cancel() { asleep_.store(false, std::memory_order_relaxed); }

void EventWaiter::wake() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (!asleep_.load(std::memory_order_seq_cst)) return;
  const uint64_t one = 1;
  // A full counter is as awake as can be.
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof one);
}

void EventWaiter::wait_until(Clock::time_point deadline) {
  if (deadline <= Clock::now()) return cancel();
  const bool timed = deadline != Clock::time_point::max();
  if (timed || timer_armed_) {
    itimerspec when{};  // zero disarms
    if (timed) {
      const auto since_boot = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
      when.it_value = {.tv_sec = since_boot / 1'000'000'000, .tv_nsec = since_boot % 1'000'000'000};
    }
    timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
    timer_armed_ = timed;
  }
  std::array<epoll_event, 4> events{};
  const int ready = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
  cancel();
  for (int i = 0; i < ready; ++i) {
    const int descriptor = events[static_cast<size_t>(i)].data.fd;
    if (descriptor != event_.get() && descriptor != timer_.get()) continue;
    uint64_t count;
    [[maybe_unused]] const ssize_t taken = read(descriptor, &count, sizeof count);
  }
}

}  // namespace scd
