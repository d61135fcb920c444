// Memory of the CPU kernels: weights packed once, and scratch that a thread keeps between calls.
#pragma once

#include <cstddef>

namespace scd::kernels::cpu {

// Cache-line aligned, zeroed, on huge pages where the size warrants it (a weight matrix is streamed: TLB misses show).
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  std::byte* data() const;
  size_t size() const;

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// One slot per purpose, so that an op may call another.
enum class ScratchSlot {
  kLinearInput,
  kLinearRounded,
  kLinearWeight,
  kLinearOutput,
  kLowRank,
  kAttention,
  kAttentionValues,
  kAttentionPartials,
  kCount
};

// At least `bytes` of the calling thread's memory, contents undefined, valid until the thread asks for the slot again.
// It grows and is kept: no allocation once warm.
std::byte* scratch(ScratchSlot slot, size_t bytes);

}  // namespace scd::kernels::cpu
