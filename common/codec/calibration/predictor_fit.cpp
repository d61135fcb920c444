#include "common/codec/calibration/predictor_fit.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/error.h"
#include "common/codec/calibration/rounding.h"
#include "common/codec/calibration/second_moment.h"
#include "kernels/linear.h"

namespace scd {
namespace {

using Eigen::MatrixXd;
using RowMajorF = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

double energy(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return sum;
}

// x_B on [z 1]: the bias is not shrunk.
void fit_regression(const DenseMatrix& codes, const DenseMatrix& targets, const PredictorOptions& options,
                    ScdPredictor& predictor) {
  const int64_t rank = codes.columns;
  const int64_t hidden = targets.columns;
  DenseMatrix inputs(codes.rows, rank + 1);
  for (int64_t r = 0; r < codes.rows; ++r) {
    std::copy_n(std::as_const(codes).view().row<float>(r), rank, inputs.view().row<float>(r));
    inputs.at(r, rank) = 1.0f;
  }
  SecondMoment moment(rank + 1 + hidden);
  moment.add_joined(std::as_const(inputs).view(), targets.view());
  MatrixXd left = moment.sum().topLeftCorner(rank + 1, rank + 1);
  const double mean = left.topLeftCorner(rank, rank).trace() / static_cast<double>(rank);
  left.diagonal().head(rank).array() += options.ridge * mean;
  const MatrixXd solved = options.algebra.solve(std::move(left), 0.0, moment.sum().topRightCorner(rank + 1, hidden));
  predictor.linear = DenseMatrix(rank, hidden);
  Eigen::Map<RowMajorF>(predictor.linear.values.data(), rank, hidden) = solved.topRows(rank).cast<float>();
  predictor.bias.resize(static_cast<size_t>(hidden));
  for (int64_t c = 0; c < hidden; ++c) predictor.bias[static_cast<size_t>(c)] = static_cast<float>(solved(rank, c));
  round_to_bf16(predictor.linear.values);
  round_to_bf16(predictor.bias);
}

// targets - prediction, [samples, hidden].
DenseMatrix residual_of(const ScdPredictor& predictor, const DenseMatrix& codes, const DenseMatrix& targets) {
  DenseMatrix out(targets.rows, targets.columns);
  const DenseMatrix component_major = transposed(codes);
  predict_attention_input(predictor, component_major.view(), out.view());
  for (size_t i = 0; i < out.values.size(); ++i) out.values[i] = targets.values[i] - out.values[i];
  return out;
}

}  // namespace

DenseMatrix codes_of(const DenseMatrix& rows, const DenseMatrix& encoder) {
  DenseMatrix codes(rows.rows, encoder.rows);
  kernels::gemm_f32({.a = rows.view(), .b = encoder.view(), .c = codes.view(), .transpose_b = true});
  round_to_bf16(codes.values);
  return codes;
}

PredictorFit fit_predictor(const PredictorSamples& samples, const PredictorOptions& options) {
  SCD_CHECK(samples.codes.rows > 0 && samples.codes.rows == samples.targets.rows, "samples of a predictor");
  PredictorFit fit;
  fit_regression(samples.codes, samples.targets, options, fit.predictor);
  const DenseMatrix residual = residual_of(fit.predictor, samples.codes, samples.targets);
  const DenseMatrix held_out = residual_of(fit.predictor, samples.held_out_codes, samples.held_out_targets);
  const double scale = std::max(energy(samples.held_out_targets.values), 1e-30);
  fit.regression_loss = energy(held_out.values) / scale;
  fit.loss = fit.regression_loss;
  if (options.network.width == 0) return fit;

  TrainedNetwork trained = fit_network({samples.codes, residual, samples.held_out_codes, held_out}, /*metric=*/{},
                                       options.network, options.algebra);
  if (trained.network.empty()) return fit;
  std::vector<float>& bias = fit.predictor.bias;
  for (size_t i = 0; i < bias.size(); ++i) bias[i] += trained.network.output_bias[i];
  round_to_bf16(bias);
  trained.network.output_bias.clear();
  fit.predictor.network = std::move(trained.network);
  fit.loss = energy(residual_of(fit.predictor, samples.held_out_codes, samples.held_out_targets).values) / scale;
  fit.epochs = trained.epochs;
  return fit;
}

}  // namespace scd
