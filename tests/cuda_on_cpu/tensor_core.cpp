#include "tests/cuda_on_cpu/tensor_core.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "tests/cuda_on_cpu/device_memory.h"

namespace scd::cuda_on_cpu {
namespace {

constexpr unsigned kWarp = 32;
constexpr uint32_t kAll = 0xffffffff;
constexpr size_t kCopied = 16;  // bytes of an asynchronous copy

float low(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
float high(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }

// Sums of 16 products in FP32, which is not how tensor cores round.
void multiply(void* const* records, uint32_t here) {
  if (here != kAll) return;  // undefined on a GPU, and nothing here
  float a[16][16], b[16][8];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const auto& record = *static_cast<const MultiplyRecord*>(records[lane]);
    const unsigned g = lane / 4, t = lane % 4 * 2;
    for (unsigned i = 0; i < 4; ++i) {
      float* const to = &a[g + i % 2 * 8][t + i / 2 * 8];
      to[0] = low(record.a[i]);
      to[1] = high(record.a[i]);
    }
    for (unsigned i = 0; i < 2; ++i) {
      b[t + i * 8][g] = low(record.b[i]);
      b[t + i * 8 + 1][g] = high(record.b[i]);
    }
  }
  for (unsigned row = 0; row < 16; ++row) {
    float sums[8] = {};
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned column = 0; column < 8; ++column) sums[column] += a[row][k] * b[k][column];
    }
    for (unsigned column = 0; column < 8; ++column) {
      const auto& record = *static_cast<const MultiplyRecord*>(records[row % 8 * 4 + column / 2]);
      record.c[row / 8 * 2 + column % 2] += sums[column];
    }
  }
}

template <bool kTransposed>
void load_matrices(void* const* records, uint32_t here) {
  if (here != kAll) return;
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    uint16_t values[8][8];
    for (unsigned row = 0; row < 8; ++row) {
      const uint32_t address = static_cast<const LoadRecord*>(records[matrix * 8 + row])->address;
      std::memcpy(values[row], at_shared_address(address), sizeof values[row]);
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
      const unsigned g = lane / 4, t = lane % 4 * 2;
      const uint16_t first = kTransposed ? values[t][g] : values[g][t];
      const uint16_t second = kTransposed ? values[t + 1][g] : values[g][t + 1];
      static_cast<const LoadRecord*>(records[lane])->to[matrix] = first | uint32_t{second} << 16;
    }
  }
}

}  // namespace

const Meeting kMultiply{"mma", multiply};
const Meeting kLoadMatrices{"ldmatrix", load_matrices<false>};
const Meeting kLoadMatricesTransposed{"ldmatrix.trans", load_matrices<true>};

void AsyncCopies::add(uint32_t to, const void* from, bool valid) {
  std::memset(at_shared_address(to), kUnwritten, kCopied);
  copies_.push_back({to, valid ? from : nullptr, group_});
}

void AsyncCopies::wait(uint64_t groups_left) {
  size_t done = 0;
  for (; done < copies_.size() && copies_[done].group + groups_left < group_; ++done) {
    const Copy& copy = copies_[done];
    std::byte* const to = at_shared_address(copy.to);
    copy.from != nullptr ? std::memcpy(to, copy.from, kCopied) : std::memset(to, 0, kCopied);
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(done));
}

AsyncCopies& copies_of_thread() {
  static std::array<AsyncCopies, 1024> of_block;
  AsyncCopies& copies = of_block[thread_number()];
  if (copies.block_ != block_count()) {
    copies.copies_.clear();
    copies.block_ = block_count();
  }
  return copies;
}

}  // namespace scd::cuda_on_cpu
