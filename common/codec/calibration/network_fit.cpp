// Training in the metric: targets are turned into a space where errors cost their squares, and outputs back.
#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/codec/calibration/network.h"
#include "common/codec/calibration/rounding.h"
#include "kernels/linear.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr double kSmallestCost = 1e-3;  // of a direction, of the mean

DenseMatrix to_dense(const MatrixXd& matrix) {
  DenseMatrix dense(matrix.rows(), matrix.cols());
  Eigen::Map<RowMajorF>(dense.values.data(), matrix.rows(), matrix.cols()) = matrix.cast<float>();
  return dense;
}

// rows times a symmetric matrix; empty: as they are.
DenseMatrix turned(const DenseMatrix& rows, const DenseMatrix& matrix) {
  if (matrix.empty()) return rows;
  DenseMatrix out(rows.rows, matrix.columns);
  kernels::gemm_f32({.a = rows.view(), .b = matrix.view(), .c = out.view()});
  return out;
}

std::vector<float> turned(const std::vector<float>& row, const DenseMatrix& matrix) {
  DenseMatrix rows(1, std::ssize(row));
  rows.values = row;
  return turned(rows, matrix).values;
}

// G^1/2 and its inverse, of the metric with its floor; both empty without one.
struct Whitening {
  Whitening(const MatrixXd& metric, const Algebra& algebra) {
    if (metric.size() == 0) return;
    const double mean = metric.trace() / static_cast<double>(metric.rows());
    SCD_CHECK(mean > 0 && metric.allFinite(), "a metric of a network's outputs");
    const auto floored = [mean](VectorXd& values) { values = values.cwiseMax(kSmallestCost * mean).cwiseSqrt(); };
    root = to_dense(algebra.with_spectrum(metric, floored));
    inverse = to_dense(algebra.with_spectrum(metric, [&](VectorXd& values) {
      floored(values);
      values = values.cwiseInverse();
    }));
  }
  DenseMatrix root, inverse;
};

void round_network(SmallNetwork& network) {
  round_to_bf16(network.input.values);
  round_to_bf16(network.input_bias);
  round_to_bf16(network.output.values);
  round_to_bf16(network.output_bias);
}

double mean_energy(const DenseMatrix& rows) {
  double sum = 0;
  for (const float value : rows.values) sum += double{value} * value;
  return sum / static_cast<double>(std::max<int64_t>(rows.rows, 1));
}

// What the network leaves of its held-out targets.
DenseMatrix left_over(const SmallNetwork& network, const NetworkSamples& samples) {
  DenseMatrix added(samples.held_out_targets.rows, samples.held_out_targets.columns);
  add_network(network, {.codes = {}, .anchor = samples.held_out_inputs.view()}, added.view());
  for (size_t i = 0; i < added.values.size(); ++i) {
    added.values[i] = samples.held_out_targets.values[i] - added.values[i];
  }
  return added;
}

}  // namespace

TrainedNetwork fit_network(const NetworkSamples& samples, const MatrixXd& metric, const NetworkOptions& options,
                           const Algebra& algebra) {
  const Whitening whitening(metric, algebra);
  const DenseMatrix targets = turned(samples.targets, whitening.root);
  const DenseMatrix held_out_targets = turned(samples.held_out_targets, whitening.root);
  TrainedNetwork trained = train_network({samples.inputs, targets, samples.held_out_inputs, held_out_targets}, options);
  SmallNetwork& network = trained.network;
  network.output = turned(network.output, whitening.inverse);
  network.output_bias = turned(network.output_bias, whitening.inverse);
  round_network(network);
  trained.held_out_loss = mean_energy(turned(left_over(network, samples), whitening.root));
  if (trained.epochs > 0 && trained.held_out_loss < trained.held_out_power) return trained;
  return {.network = {}, .held_out_power = trained.held_out_power, .held_out_loss = trained.held_out_power};
}

}  // namespace scd
