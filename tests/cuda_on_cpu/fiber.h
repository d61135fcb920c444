// A stack of its own for each thread of a block that waits.
#pragma once

#include <cstddef>

// Keeps the registers that a callee must preserve on the stack it leaves, and takes up those of the other.
extern "C" void scd_switch_stacks(void** left, void* entered);

namespace scd::cuda_on_cpu {

class Fiber {
 public:
  Fiber() = default;                     // what the host runs on
  Fiber(void (*body)(), size_t number);  // the body never returns; the number is the how manieth fiber this is
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // From this one, which runs, to the other.
  void switch_to(Fiber& other) { scd_switch_stacks(&stack_pointer_, other.stack_pointer_); }
  // To the beginning of its body, whatever it was doing.
  void restart();

 private:
  void (*body_)() = nullptr;
  size_t number_ = 0;
  std::byte* memory_ = nullptr;
  void* stack_pointer_ = nullptr;
};

}  // namespace scd::cuda_on_cpu
