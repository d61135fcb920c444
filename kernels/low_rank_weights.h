// How packed factors lie in memory.
//
// In pairs (BF16 on CPUs that multiply it): A [blocks of 16 ranks][in / 2][16][2], B of each part
// [blocks of 16 outputs][rank / 2][16][2]; inputs padded to 4, a part's rank to 2, all ranks together and a part's
// outputs to 16, with zeros. Else in rows: A [rank, in], B of each part transposed, [rank, outputs].
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "kernels/low_rank.h"
#include "kernels/matrix.h"

namespace scd::kernels {

struct LowRankWeights {
  struct Part {
    int64_t first_output = 0;
    int64_t outputs = 0;
    int64_t first_rank = 0;
    int64_t rank = 0;
    int64_t b_at = 0;  // elements from the memory's beginning
  };
  static constexpr int64_t kLanes = 16;

  int64_t in = 0;
  int64_t out = 0;
  int64_t rank = 0;  // of all parts
  DType precision = DType::kF32;
  Device device = Device::kCpu;
  bool in_pairs = false;
  std::vector<Part> parts;
  DeviceBuffer memory;  // A, then B of each part

  int64_t padded_in() const { return (in + 3) / 4 * 4; }
  int64_t rank_blocks() const { return (rank + kLanes - 1) / kLanes; }
  template <class T>
  const T* a() const {
    return reinterpret_cast<const T*>(memory.data());
  }
  template <class T>
  const T* b(const Part& part) const {
    return a<T>() + part.b_at;
  }
};

// Of a LowRankSet's table on CUDA.
struct LowRankEntry {
  const std::byte* memory = nullptr;  // null: no factors
  bool narrow = false;                // BF16, else F32
  int64_t in = 0;
  int64_t rank = 0;
  int64_t part_count = 0;
  LowRankWeights::Part parts[PackedLowRank::kMaxParts] = {};
};

namespace cpu {

// Rows of one group that a thread takes at a time.
struct LowRankTile {
  const LowRankWeights& weights;
  const ConstMatrix& x;
  const Matrix& y;
  std::span<const int32_t> rows;  // at most kLowRankTileRows
};
inline constexpr int64_t kLowRankTileRows = 8;

void add_low_rank_avx512_bf16(const LowRankTile& tile);  // in pairs

}  // namespace cpu
}  // namespace scd::kernels
