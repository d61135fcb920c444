// One thread's sleep: until another thread wakes it, a watched descriptor becomes readable, or a time has come.
#pragma once

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
  void wake();                 // any thread; not lost when nobody waits
  // time_point::max(): no time limit. Exact to the timer slack of the system (about 50 us), not to milliseconds.
  void wait_until(Clock::time_point deadline);

 private:
  FileDescriptor epoll_;
  FileDescriptor event_;
  FileDescriptor timer_;
};

}  // namespace scd
