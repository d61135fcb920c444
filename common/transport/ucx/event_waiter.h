// One thread's sleep: until another thread wakes it, a watched descriptor becomes readable, or a time has come.
#pragma once

#include <atomic>
#include <chrono>

namespace scd {

// A file descriptor, closed with its owner.
class FileDescriptor {
 public:
  // Throws Error(RESOURCE_EXHAUSTED) naming `what` when the descriptor is not valid.
  FileDescriptor(int descriptor, const char* what);
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor();
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

class EventWaiter {
 public:
  using Clock = std::chrono::steady_clock;

  EventWaiter();

  void watch(int descriptor);  // wakes while it is readable; owned by the caller
  // Any thread. Costs a system call only while the waiting thread sleeps or is about to.
  void wake();
  // Announces sleep: a wake() from here on ends the next wait_until() at once. Whoever waits looks for work between the
  // two, so that nothing left before a skipped wake() is overlooked.
  void prepare();
  // time_point::max(): no time limit. Exact to the timer slack of the system (about 50 us), not to milliseconds.
  void wait_until(Clock::time_point deadline);
  void cancel();  // found work after prepare()

 private:
  std::atomic<bool> asleep_{false};
  FileDescriptor epoll_;
  FileDescriptor event_;
  FileDescriptor timer_;
  bool timer_armed_ = false;
};

}  // namespace scd
