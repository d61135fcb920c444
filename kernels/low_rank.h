// y += x A^T B^T for some rows of a batch, each with factors of its own: LoRA adapters that are not merged (Hu et al.
// 2021; many over one base: Punica, arXiv:2310.18547, S-LoRA, arXiv:2311.03285). Rows without factors cost next to
// nothing. What bounds it: memory bandwidth, as few rows share factors; the CPU reads those once for up to eight rows.
// A row's result does not depend on the other rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "kernels/grow_buffer.h"
#include "kernels/matrix.h"

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
  static constexpr int64_t kMaxParts = 4;

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

// The factors of one adapter in the layers of a model: the i-th are those of its i-th layer, null where it has none. On
// CUDA a table of them lies there. What it points to outlives it.
class LowRankSet {
 public:
  LowRankSet() = default;
  LowRankSet(std::vector<const PackedLowRank*> factors, Device device);

  const PackedLowRank* operator[](int64_t index) const { return factors_[static_cast<size_t>(index)]; }
  int64_t size() const { return static_cast<int64_t>(factors_.size()); }
  const std::byte* table() const { return table_.data(); }

 private:
  std::vector<const PackedLowRank*> factors_;
  DeviceBuffer table_;
};

// Rows of x and y that share factors.
struct LowRankGroup {
  const PackedLowRank* factors = nullptr;
  std::span<const int32_t> rows;
};

// Which set the rows of a batch take their factors from. On CUDA it keeps a copy there, at an address that does not
// change while the batch's capacity holds.
class LowRankRows {
 public:
  // Room for so many rows; grows by itself otherwise.
  void reserve(int64_t rows, Device device);
  // sets [rows], null: none; they outlive the products. for_any: on CUDA products run as though any row had factors of
  // any layer, so that what is recorded of them serves all sets.
  void assign(std::span<const LowRankSet* const> sets, Device device, bool for_any = false);

  int64_t rows() const { return rows_; }
  Device device() const { return device_; }
  bool for_any() const { return for_any_; }
  // Of the rows that have these factors, ascending.
  std::span<const LowRankGroup> groups(int64_t index);
  const std::byte* sets_there() const { return static_cast<const std::byte*>(there_.data); }
  // [rows, columns] F32 on CUDA, contents undefined.
  Matrix products(int64_t columns) { return product_memory_.matrix(rows(), columns, DType::kF32, device_); }

 private:
  struct SetRows {
    const LowRankSet* set = nullptr;
    std::vector<int32_t> rows;
  };
  Device device_ = Device::kCpu;
  bool for_any_ = false;
  int64_t rows_ = 0;
  std::vector<SetRows> by_set_;  // the first distinct_ of them; the rest is kept for its memory
  size_t distinct_ = 0;
  std::vector<LowRankGroup> groups_;  // of the last call
  std::vector<const std::byte*> tables_;
  GrowBuffer there_memory_, product_memory_;
  Matrix there_;  // a pointer for each row
};

// x [rows, in_features] and y [rows, out_features], F32 or BF16, on the rows' device; each row takes the factors
// `index` of its set.
void add_low_rank(ConstMatrix x, Matrix y, LowRankRows& rows, int64_t index);

}  // namespace scd::kernels
