#include "kernels/low_rank.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cpu_level.h"
#include "kernels/dispatch.h"
#include "kernels/low_rank_weights.h"
#include "kernels/number.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

constexpr int64_t kWordsOfPointer = sizeof(void*) / sizeof(int32_t);

int64_t rounded_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

void check_parts(std::span<const LowRankPart> parts, int64_t in, int64_t out) {
  require(!parts.empty() && in > 0 && out > 0, "low rank: a layer without parts, inputs or outputs");
  require(std::ssize(parts) <= PackedLowRank::kMaxParts, "low rank: a layer of ", std::ssize(parts),
          " parts, more than ", PackedLowRank::kMaxParts);
  int64_t end = 0;
  for (const LowRankPart& part : parts) {
    require_cpu(part.a, "the factor A of a layer");
    require_cpu(part.b, "the factor B of a layer");
    require(part.a.dtype == DType::kF32 && part.b.dtype == DType::kF32, "low rank: the factors ", part.a, " and ",
            part.b, " must be F32");
    require(part.a.columns == in && part.a.rows == part.b.columns && part.a.rows > 0 && part.b.rows > 0,
            "low rank: the factors ", part.a, " and ", part.b, " do not fit ", in, " inputs");
    require(part.a.rows <= PackedLowRank::kMaxRank, "low rank: the factor ", part.a, " has more than ",
            PackedLowRank::kMaxRank, " rows");
    require(part.first_output >= end && part.first_output + part.b.rows <= out, "low rank: outputs from ",
            part.first_output, " of ", part.b, " do not fit behind ", end, " of ", out);
    end = part.first_output + part.b.rows;
  }
}

// Where each part's factors go; returns how many elements there are.
int64_t lay_out(std::span<const LowRankPart> parts, LowRankWeights& weights) {
  for (const LowRankPart& part : parts) {
    const int64_t rank = weights.in_pairs ? rounded_up(part.a.rows, 2) : part.a.rows;
    weights.parts.push_back({part.first_output, part.b.rows, weights.rank, rank, 0});
    weights.rank += rank;
  }
  constexpr int64_t kLanes = LowRankWeights::kLanes;
  int64_t end = weights.in_pairs ? weights.rank_blocks() * kLanes * weights.padded_in() : weights.rank * weights.in;
  for (LowRankWeights::Part& part : weights.parts) {
    part.b_at = end;
    end += part.rank * (weights.in_pairs ? rounded_up(part.outputs, kLanes) : part.outputs);
  }
  return end;
}

// Lane `lane` of a block [pairs][16][2].
void place_lane(std::span<uint16_t> block, int64_t lane, int64_t index, float value) {
  block[static_cast<size_t>((index / 2 * LowRankWeights::kLanes + lane) * 2 + index % 2)] = float_to_bf16(value);
}

void pack_pairs(std::span<const LowRankPart> parts, const LowRankWeights& weights, std::span<uint16_t> packed) {
  constexpr int64_t kLanes = LowRankWeights::kLanes;
  const int64_t a_block = kLanes * weights.padded_in();
  for (size_t i = 0; i < parts.size(); ++i) {
    const LowRankWeights::Part& at = weights.parts[i];
    const ConstMatrix &a = parts[i].a, &b = parts[i].b;
    for (int64_t k = 0; k < a.rows; ++k) {
      const int64_t rank = at.first_rank + k;
      const auto block = packed.subspan(static_cast<size_t>(rank / kLanes * a_block), static_cast<size_t>(a_block));
      for (int64_t c = 0; c < a.columns; ++c) place_lane(block, rank % kLanes, c, a.row<float>(k)[c]);
    }
    const int64_t b_block = kLanes * at.rank;
    for (int64_t o = 0; o < b.rows; ++o) {
      const auto block =
          packed.subspan(static_cast<size_t>(at.b_at + o / kLanes * b_block), static_cast<size_t>(b_block));
      for (int64_t k = 0; k < b.columns; ++k) place_lane(block, o % kLanes, k, b.row<float>(o)[k]);
    }
  }
}

void set(float& to, float value) { to = value; }
void set(uint16_t& to, float value) { to = float_to_bf16(value); }

template <class T>
void pack_rows(std::span<const LowRankPart> parts, const LowRankWeights& weights, T* packed) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const LowRankWeights::Part& at = weights.parts[i];
    for (int64_t k = 0; k < at.rank; ++k) {
      T* a = packed + (at.first_rank + k) * weights.in;
      for (int64_t c = 0; c < weights.in; ++c) set(a[c], parts[i].a.row<float>(k)[c]);
      T* b = packed + at.b_at + k * at.outputs;
      for (int64_t o = 0; o < at.outputs; ++o) set(b[o], parts[i].b.row<float>(o)[k]);
    }
  }
}

}  // namespace

PackedLowRank::PackedLowRank(std::span<const LowRankPart> parts, int64_t in, int64_t out, DType precision,
                             Device device) {
  require_device_in_build(device);
  require(precision != DType::kF16, "low rank: the precision must be F32 or BF16");
  check_parts(parts, in, out);
  auto weights = std::make_unique<LowRankWeights>();
  weights->in = in;
  weights->out = out;
  weights->precision = precision;
  weights->device = device;
  weights->in_pairs = device == Device::kCpu && precision == DType::kBF16 && cpu_level() >= CpuLevel::kAvx512Bf16;
  const auto elements = static_cast<size_t>(lay_out(parts, *weights));
  const size_t bytes = elements * size_of(precision);
  DeviceBuffer here(Device::kCpu, bytes);
  std::memset(here.data(), 0, bytes);
  auto* numbers = reinterpret_cast<uint16_t*>(here.data());
  if (weights->in_pairs) {
    pack_pairs(parts, *weights, {numbers, elements});
  } else if (precision == DType::kBF16) {
    pack_rows(parts, *weights, numbers);
  } else {
    pack_rows(parts, *weights, reinterpret_cast<float*>(here.data()));
  }
  weights->memory = device == Device::kCpu ? std::move(here) : buffer_of({here.data(), bytes}, device);
  weights_ = std::move(weights);
}

PackedLowRank::PackedLowRank(PackedLowRank&&) noexcept = default;
PackedLowRank& PackedLowRank::operator=(PackedLowRank&&) noexcept = default;
PackedLowRank::~PackedLowRank() = default;

Device PackedLowRank::device() const { return weights_->device; }
size_t PackedLowRank::packed_bytes() const { return weights_->memory.size(); }

LowRankSet::LowRankSet(std::vector<const PackedLowRank*> factors, Device device) : factors_(std::move(factors)) {
  for (const PackedLowRank* one : factors_) {
    require(one == nullptr || one->device() == device, "low rank: factors of a set are not on ", device);
  }
  if (device == Device::kCpu) return;
  std::vector<LowRankEntry> table;
  for (const PackedLowRank* one : factors_) {
    LowRankEntry& entry = table.emplace_back();
    if (one == nullptr) continue;
    const LowRankWeights& weights = one->weights();
    entry = {.memory = weights.memory.data(),
             .narrow = weights.precision == DType::kBF16,
             .in = weights.in,
             .rank = weights.rank,
             .part_count = std::ssize(weights.parts)};
    std::ranges::copy(weights.parts, entry.parts);
  }
  table_ = buffer_of(std::as_bytes(std::span(table)), device);
}

void LowRankRows::reserve(int64_t rows, Device device) {
  there_memory_.matrix(rows, kWordsOfPointer, DType::kF32, device);
  product_memory_.matrix(rows, PackedLowRank::kMaxRank * PackedLowRank::kMaxParts, DType::kF32, device);
}

void LowRankRows::assign(std::span<const LowRankSet* const> sets, Device device, bool for_any) {
  device_ = device;
  for_any_ = for_any && device == Device::kGpu;
  rows_ = std::ssize(sets);
  distinct_ = 0;
  for (size_t row = 0; row < sets.size(); ++row) {
    if (sets[row] == nullptr) continue;
    const std::span known(by_set_.data(), distinct_);
    auto at = static_cast<size_t>(std::ranges::find(known, sets[row], &SetRows::set) - known.begin());
    if (at == distinct_) {
      if (++distinct_ > by_set_.size()) by_set_.emplace_back();
      by_set_[at].set = sets[row];
      by_set_[at].rows.clear();
    }
    by_set_[at].rows.push_back(static_cast<int32_t>(row));
  }
  if (device_ == Device::kCpu || (distinct_ == 0 && !for_any_)) return;
  tables_.clear();
  for (const LowRankSet* set : sets) tables_.push_back(set == nullptr ? nullptr : set->table());
  there_ = there_memory_.matrix(rows(), kWordsOfPointer, DType::kF32, device_);
  send({reinterpret_cast<const int32_t*>(tables_.data()), tables_.size() * kWordsOfPointer}, device_,
       static_cast<std::byte*>(there_.data));
}

std::span<const LowRankGroup> LowRankRows::groups(int64_t index) {
  groups_.clear();
  for (const SetRows& one : std::span(by_set_.data(), distinct_)) {
    require(index >= 0 && index < one.set->size(), "low rank: factors ", index, " of a set of ", one.set->size());
    if ((*one.set)[index] != nullptr) groups_.push_back({(*one.set)[index], one.rows});
  }
  return groups_;
}

void add_low_rank(ConstMatrix x, Matrix y, LowRankRows& rows, int64_t index) {
  require_matrix(x, "the input of a low-rank product");
  require_on(x.device, y, "the output of a low-rank product");
  require(x.dtype != DType::kF16 && y.dtype != DType::kF16 && x.rows == y.rows, "low rank: input ", x, " and output ",
          y, " must be F32 or BF16 with the same number of rows");
  require(rows.rows() == x.rows && rows.device() == x.device, "low rank: sets of ", rows.rows(), " rows on ",
          rows.device(), " for ", x);
  const std::span<const LowRankGroup> groups = rows.groups(index);
  [[maybe_unused]] int64_t most_rank = rows.for_any() ? PackedLowRank::kMaxRank * PackedLowRank::kMaxParts : 0;
  for (const LowRankGroup& group : groups) {
    const LowRankWeights& weights = group.factors->weights();
    require(weights.device == x.device && weights.in == x.columns && weights.out == y.columns, "low rank: factors of ",
            weights.in, " inputs and ", weights.out, " outputs on ", weights.device, " do not fit ", x, " and ", y);
    most_rank = std::max(most_rank, weights.rank);
  }
  if (x.rows == 0 || (groups.empty() && !rows.for_any())) return;
  SCD_ON(x.device, cuda::add_low_rank(x, y, rows, index, most_rank), cpu::add_low_rank(x, y, groups));
}

}  // namespace scd::kernels
