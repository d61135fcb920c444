// What a kernel finds around it: the number of its thread, the others of its warp and block, their shared memory.
// Blocks run one after another; the threads of a block are fibers of one thread of the host and change only where one
// waits, in the order of their numbers, in every second block backwards.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace scd::cuda_on_cpu {

unsigned thread_number();  // in the block
inline unsigned lane() { return thread_number() % 32; }

// Something that lanes of a warp do together. Each brings a record; the last to come acts on those of all lanes of the
// bit mask `here`, while the others wait.
struct Meeting {
  const char* name;
  void (*act)(void* const* records, uint32_t here);
};
// Returns once every lane of the mask that has not ended is at the same meeting.
void meet(const Meeting& meeting, uint32_t mask, void* record);

void wait_for_block();

uint64_t block_count();  // of the blocks begun in this process
std::byte* dynamic_shared_memory();
void* shared_memory(size_t bytes, size_t alignment);  // of this block, undefined contents
uint32_t shared_address(const void* memory);          // as PTX has it
std::byte* at_shared_address(uint32_t address);

// A __shared__ variable, in each block another.
template <class T>
class Shared {
 public:
  T& of_block() {
    if (block_ != block_count()) {
      memory_ = shared_memory(sizeof(T), alignof(T));
      block_ = block_count();
    }
    return *static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  uint64_t block_ = 0;
};

}  // namespace scd::cuda_on_cpu
