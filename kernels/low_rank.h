// y += x A^T B^T for some rows of a batch, each with factors of its own: LoRA adapters that are not merged (Hu et al.
// 2021; many over one base: Punica, arXiv:2310.18547, S-LoRA, arXiv:2311.03285). Rows without factors cost nothing.
// What bounds it: memory bandwidth, as a group of rows is small; each group's factors are read once for up to eight
// rows. A row's result does not depend on the other rows.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/matrix.h"
#include "kernels/sequences.h"

namespace scd::kernels {

struct LowRankWeights;

// What an adapter adds to outputs [first_output, first_output + b.rows) of a fused layer.
struct LowRankPart {
  int64_t first_output = 0;
  ConstMatrix a;  // [rank, in_features] F32, on the host
  ConstMatrix b;  // [outputs, rank] F32, scaled, on the host
};

// The factors of one layer, packed once: the A of all parts stand together, so that one product with x serves them all.
// Move-only and immutable.
class PackedLowRank {
 public:
  static constexpr int64_t kMaxRank = 512;  // of a part

  // Parts in the order of their outputs, which do not overlap. precision kF32 or kBF16: what factors and x A^T are
  // rounded to; sums are F32.
  PackedLowRank(std::span<const LowRankPart> parts, int64_t in_features, int64_t out_features, DType precision,
                Device device = Device::kCpu);
  PackedLowRank(PackedLowRank&&) noexcept;
  PackedLowRank& operator=(PackedLowRank&&) noexcept;
  ~PackedLowRank();

  Device device() const;
  size_t packed_bytes() const;  // memory held, padding included
  const LowRankWeights& weights() const { return *weights_; }

 private:
  std::unique_ptr<const LowRankWeights> weights_;
};

// Rows of x and y that share factors; `rows` are their indices.
struct LowRankGroup {
  const PackedLowRank* factors = nullptr;
  Indices rows;
};

// x [rows, in_features] and y [rows, out_features], F32 or BF16, on the factors' device. A row is in one group at most.
void add_low_rank(ConstMatrix x, Matrix y, std::span<const LowRankGroup> groups);

}  // namespace scd::kernels
