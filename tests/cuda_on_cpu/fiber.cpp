#include "tests/cuda_on_cpu/fiber.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <cstdint>
#include <new>

asm(R"(
.text
.hidden scd_switch_stacks
.globl scd_switch_stacks
.type scd_switch_stacks, @function
scd_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size scd_switch_stacks, .-scd_switch_stacks
)");

namespace scd::cuda_on_cpu {
namespace {

constexpr size_t kStackBytes = size_t{128} << 10;
constexpr size_t kGuardBytes = 4096;  // an overflow faults
constexpr size_t kSavedRegisters = 6;
// Stacks begin at unlike offsets, so that the caches can hold the tops of all.
constexpr size_t kOffset = 17 * 64, kOffsets = 32;

}  // namespace

Fiber::Fiber(void (*body)(), size_t number) : body_(body), number_(number) {
  void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  mprotect(memory_, kGuardBytes, PROT_NONE);
  restart();
}

Fiber::~Fiber() {
  if (memory_ != nullptr) munmap(memory_, kStackBytes);
}

void Fiber::restart() {
  ASAN_UNPOISON_MEMORY_REGION(memory_, kStackBytes);
  auto* top = reinterpret_cast<uint64_t*>(memory_ + kStackBytes - number_ % kOffsets * kOffset);
  *--top = 0;  // where a return address would stand: keeps the body's frame aligned
  *--top = reinterpret_cast<uint64_t>(body_);
  for (size_t i = 0; i < kSavedRegisters; ++i) *--top = 0;
  stack_pointer_ = top;
}

}  // namespace scd::cuda_on_cpu
