#include "common/codec/calibration/reservoir.h"

#include <algorithm>

#include "common/base/check.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"

namespace scd {

namespace {

void keep(const kernels::ConstMatrix& rows, int64_t row, kernels::BFloat16* target) {
  thread_local kernels::GrowBuffer memory;
  kernels::ConstMatrix one = rows;
  one.data = rows.row<float>(row);
  one.rows = 1;
  if (rows.device != kernels::Device::kCpu) {
    const kernels::Matrix here = memory.matrix(1, rows.columns);
    kernels::copy(one, here);
    one = here;
  }
  kernels::convert(one, kernels::matrix(target, 1, rows.columns));
}

}  // namespace

PairReservoir::PairReservoir(int64_t capacity, int64_t first_width, int64_t second_width, uint64_t seed)
    : capacity_(capacity), first_width_(first_width), second_width_(second_width), random_(seed) {
  SCD_CHECK(capacity > 0, "a reservoir holds something");
}

int64_t PairReservoir::size() const { return std::min(seen_, capacity_); }

void PairReservoir::add(kernels::ConstMatrix first, kernels::ConstMatrix second) {
  SCD_CHECK(first.rows == second.rows && first.columns == first_width_ && second.columns == second_width_,
            "pairs of a reservoir");
  const int64_t width = first_width_ + second_width_;
  for (int64_t row = 0; row < first.rows; ++row) {
    // The remainder's bias towards small slots is below 2^-40 for any stream there will be.
    const int64_t slot = seen_ < capacity_ ? seen_ : static_cast<int64_t>(random_() % static_cast<uint64_t>(seen_ + 1));
    ++seen_;
    if (slot >= capacity_) continue;
    if (static_cast<size_t>((slot + 1) * width) > rows_.size()) rows_.resize(static_cast<size_t>((slot + 1) * width));
    keep(first, row, rows_.data() + slot * width);
    keep(second, row, rows_.data() + slot * width + first_width_);
  }
}

DenseMatrix PairReservoir::unpack(int64_t offset, int64_t width) const {
  DenseMatrix out(size(), width);
  const kernels::ConstMatrix stored{
      rows_.data() + offset, size(), width, first_width_ + second_width_, kernels::DType::kBF16, kernels::Device::kCpu};
  if (size() > 0) kernels::convert(stored, out.view());
  return out;
}

DenseMatrix PairReservoir::first() const { return unpack(0, first_width_); }
DenseMatrix PairReservoir::second() const { return unpack(first_width_, second_width_); }

}  // namespace scd
