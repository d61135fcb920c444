// Tells ThreadSanitizer what gRPC's locks order. gRPC and Abseil come from packages that are not instrumented, and
// Abseil's mutex waits on futexes, which TSan does not follow: what one thread hands another through gRPC would look
// like a race. The program's definitions stand before the library's for everybody; they call those and say so.
//
// All of gRPC's locks count as one: what a thread did before it left any of them is ordered before what another does
// after it entered any. That is more than they order (gRPC also hands over through lock-free queues, and takes locks on
// the way), so a race between two of our threads is missed where both go through gRPC in between; those that do not,
// and orders in which they do not, are seen.
#include <dlfcn.h>
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

#include <cstddef>
#include <cstdint>

namespace {

template <class Function>
Function real(const char* symbol) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, symbol));
}

char token;
void acquire() { __tsan_acquire(&token); }
void release() { __tsan_release(&token); }

}  // namespace

// An operation begins: whoever completes it comes after what was done before.
extern "C" grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* operations, size_t count, void* tag,
                                                 void* reserved) {
  static const auto next = real<decltype(&grpc_call_start_batch)>("grpc_call_start_batch");
  release();
  return next(call, operations, count, tag, reserved);
}

// An operation has ended: from here its callback is run, or who waited for it goes on.
extern "C" grpc_event grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline, void* reserved) {
  static const auto next = real<decltype(&grpc_completion_queue_next)>("grpc_completion_queue_next");
  const grpc_event event = next(queue, deadline, reserved);
  acquire();
  return event;
}

extern "C" grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue, void* tag, gpr_timespec deadline,
                                                  void* reserved) {
  static const auto next = real<decltype(&grpc_completion_queue_pluck)>("grpc_completion_queue_pluck");
  const grpc_event event = next(queue, tag, deadline, reserved);
  acquire();
  return event;
}

namespace absl::debian3 {

// As far as their calls go; Abseil passes both by value, in two registers.
struct Duration {
  int64_t high;
  uint32_t low;
};
struct Time {
  Duration since_epoch;
};

class Mutex {
 public:
  void Lock();
  void Unlock();
  bool TryLock();
};

class CondVar {
 public:
  void Wait(Mutex* mutex);
  bool WaitWithTimeout(Mutex* mutex, Duration timeout);
  bool WaitWithDeadline(Mutex* mutex, Time deadline);
};

void Mutex::Lock() {
  static const auto next = real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex4LockEv");
  next(this);
  acquire();
}

void Mutex::Unlock() {
  static const auto next = real<void (*)(Mutex*)>("_ZN4absl7debian35Mutex6UnlockEv");
  release();
  next(this);
}

bool Mutex::TryLock() {
  static const auto next = real<bool (*)(Mutex*)>("_ZN4absl7debian35Mutex7TryLockEv");
  const bool locked = next(this);
  if (locked) acquire();
  return locked;
}

void CondVar::Wait(Mutex* mutex) {
  static const auto next = real<void (*)(CondVar*, Mutex*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  release();
  next(this, mutex);
  acquire();
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  static const auto next = real<bool (*)(CondVar*, Mutex*, Duration)>(
      "_ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  release();
  const bool late = next(this, mutex, timeout);
  acquire();
  return late;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  static const auto next =
      real<bool (*)(CondVar*, Mutex*, Time)>("_ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  release();
  const bool late = next(this, mutex, deadline);
  acquire();
  return late;
}

}  // namespace absl::debian3
