#include "tools/scd/rd_variants.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"

namespace scd {

using Eigen::Index;
using Eigen::MatrixXd;

RdVariant parse_rd_variant(std::string_view name) {
  std::string known;
  for (size_t i = 0; i < kRdVariantNames.size(); ++i) {
    if (kRdVariantNames[i] == name) return static_cast<RdVariant>(i);
    known += (known.empty() ? "" : ", ") + std::string(kRdVariantNames[i]);
  }
  throw Error(ErrorCode::kInvalidArgument, "--variants " + std::string(name) + ": expected of " + known);
}

std::vector<LayerMetric> metrics_of(RdVariant variant, std::span<const LayerMetric> metrics) {
  std::vector<LayerMetric> changed(metrics.begin(), metrics.end());
  for (LayerMetric& layer : changed) {
    for (MatrixXd* metric : {&layer.keys, &layer.values}) {
      const double trace = metric->trace();
      if (variant == RdVariant::kNoMetric)
        *metric = MatrixXd::Identity(metric->rows(), metric->cols()) * (trace / metric->rows());
      if (variant == RdVariant::kNoWeights && trace > 0) *metric /= trace;
    }
  }
  return changed;
}

MatrixXd with_shared_heads(const RegressionMoment& moment, const CodedUnit& unit, const CodecModel& model) {
  const Index last = moment.sum.rows() - 1, width = model.kv_width(), d = model.head_dim;
  const Index state = 2 * width * unit.layers;  // of x and of y, without anchors
  if (unit.residual || moment.target_dims != state || last != 2 * state) {
    throw Error(ErrorCode::kInvalidArgument,
                "--variants head-shared: for producers and consumers of one shape, with --no-prediction");
  }
  const double count = moment.sum(last, last);
  const Eigen::VectorXd mean = moment.sum.col(last) / count;
  MatrixXd covariance = moment.sum / count - mean * mean.transpose();
  const auto share = [&](Index row, Index column) {
    for (Index part = 0; part < state; part += width) {  // keys of a layer, or values
      MatrixXd of_head = MatrixXd::Zero(d, d);
      for (Index head = 0; head < width; head += d) {
        of_head += covariance.block(row + part + head, column + part + head, d, d);
      }
      covariance.block(row + part, column, width, state).setZero();
      for (Index head = 0; head < width; head += d) {
        covariance.block(row + part + head, column + part + head, d, d) = of_head / model.kv_heads;
      }
    }
  };
  share(0, 0);
  share(0, moment.source_dims);
  covariance.block(moment.source_dims, 0, state, state) =
      covariance.block(0, moment.source_dims, state, state).transpose();
  return count * (covariance + mean * mean.transpose());
}

RateFit fit_principal_components(const RegressionMoment& moment, const MatrixXd& metric, double ridge,
                                 const Algebra& algebra) {
  const Index x = moment.source_dims, last = moment.sum.rows() - 1;
  MatrixXd twice(2 * x + 1, 2 * x + 1);
  const auto copy = [&](Index row, Index rows, Index from_row) {
    twice.block(row, 0, rows, x) = moment.sum.block(from_row, 0, rows, x);
    twice.block(row, x, rows, x) = moment.sum.block(from_row, 0, rows, x);
    twice.block(row, 2 * x, rows, 1) = moment.sum.block(from_row, last, rows, 1);
  };
  copy(0, x, 0);
  copy(x, x, 0);
  copy(2 * x, 1, last);
  return fit_rate({twice, x, x}, metric, ridge, algebra);
}

void fix_rank(RateFit& fit, int64_t rank) {
  rank = std::min<int64_t>(rank, fit.encoder.map.rows);
  fit.encoder.map.rows = rank;
  fit.encoder.map.values.resize(static_cast<size_t>(rank * fit.encoder.map.columns));
  fit.encoder.offset.resize(static_cast<size_t>(rank));
  fit.deviations.resize(static_cast<size_t>(rank));
  for (int64_t row = 0; row < rank; ++row) {
    const float scale = 1.0f / fit.deviations[static_cast<size_t>(row)];
    float* values = fit.encoder.map.view().row<float>(row);
    for (int64_t column = 0; column < fit.encoder.map.columns; ++column) values[column] *= scale;
    fit.encoder.offset[static_cast<size_t>(row)] *= scale;
    fit.deviations[static_cast<size_t>(row)] = 1.0f;
  }
}

}  // namespace scd
