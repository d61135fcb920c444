#include "common/codec/calibration/second_moment.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "kernels/second_moment.h"

namespace scd {
namespace {

constexpr int64_t kBlockRows = 1024;
constexpr int64_t kTile = 64;

// As a row of words: what copy() moves.
template <class M>
M words_of(decltype(M::data) data, size_t bytes, kernels::Device device) {
  const auto words = static_cast<int64_t>(bytes / sizeof(float));
  return {data, 1, words, words, kernels::DType::kF32, device};
}

}  // namespace

SecondMoment::SecondMoment(int64_t dims, kernels::Device device)
    : dims_(dims),
      device_(device),
      triangle_(device, static_cast<size_t>(kernels::triangle_size(dims)) * sizeof(double)) {
  kernels::clear(words_of<kernels::Matrix>(triangle_.data(), triangle_.size(), device));
}

void SecondMoment::add(kernels::ConstMatrix rows) {
  SCD_CHECK(rows.columns == dims_ && rows.dtype == kernels::DType::kF32 && rows.device == device_,
            "rows of a second moment");
  SCD_CHECK(triangle_.size() > 0 && triangle_.device() == device_, "nobody has asked for the sum yet");
  samples_ += rows.rows;
  kernels::add_second_moment(rows, reinterpret_cast<double*>(triangle_.data()));
}

void SecondMoment::leave_device() {
  if (triangle_.device() == kernels::Device::kCpu) return;
  kernels::DeviceBuffer here(kernels::Device::kCpu, triangle_.size());
  kernels::copy(words_of<kernels::ConstMatrix>(triangle_.data(), triangle_.size(), device_),
                words_of<kernels::Matrix>(here.data(), here.size(), kernels::Device::kCpu));
  triangle_ = std::move(here);
}

const Eigen::MatrixXd& SecondMoment::sum() const {
  if (sum_.size() > 0) return sum_;
  SCD_CHECK(triangle_.device() == kernels::Device::kCpu, "the sum has left its device");
  const auto* triangle = reinterpret_cast<const double*>(triangle_.data());
  sum_.resize(dims_, dims_);
#pragma omp parallel for schedule(dynamic, 16)
  for (int64_t column = 0; column < dims_; ++column) {
    sum_.col(column).tail(dims_ - column) =
        Eigen::Map<const Eigen::VectorXd>(triangle + kernels::triangle_column(column, dims_), dims_ - column);
  }
#pragma omp parallel for schedule(dynamic)
  for (int64_t first = 0; first < dims_; first += kTile) {  // of columns, whose upper parts are rows of tiles below
    const int64_t columns = std::min(kTile, dims_ - first);
    for (int64_t row = 0; row < first; row += kTile) {
      sum_.block(row, first, kTile, columns) = sum_.block(first, row, columns, kTile).transpose();
    }
    auto diagonal = sum_.block(first, first, columns, columns);
    diagonal.triangularView<Eigen::StrictlyUpper>() = diagonal.transpose().eval();
  }
  triangle_ = {};
  return sum_;
}

void SecondMoment::add_joined(kernels::ConstMatrix first, kernels::ConstMatrix second) {
  SCD_CHECK(first.rows == second.rows, "as many rows on both sides");
  DenseMatrix joined(std::min(kBlockRows, first.rows), first.columns + second.columns);
  for (int64_t begin = 0; begin < first.rows; begin += kBlockRows) {
    const int64_t count = std::min(kBlockRows, first.rows - begin);
    for (int64_t r = 0; r < count; ++r) {
      float* row = joined.view().row<float>(r);
      std::copy_n(first.row<float>(begin + r), first.columns, row);
      std::copy_n(second.row<float>(begin + r), second.columns, row + first.columns);
    }
    add(std::as_const(joined).top(count));
  }
}

}  // namespace scd
