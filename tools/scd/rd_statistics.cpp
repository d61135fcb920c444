#include "tools/scd/rd_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "common/codec/rd/rd_state.h"
#include "tools/scd/calibration.h"

namespace scd {
namespace {

double mean_square(const float* row, int64_t count) {
  double sum = 0;
  for (int64_t c = 0; c < count; ++c) sum += double{row[c]} * row[c];
  return sum / static_cast<double>(count);
}

DenseMatrix with_ones(const DenseMatrix& rows) {
  DenseMatrix ones(rows.rows, 1);
  std::ranges::fill(ones.values, 1.0f);
  return side_by_side(rows.view(), std::as_const(ones).view());
}

double mean_variance(kernels::ConstMatrix rows) {
  const Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> values(
      rows.row<float>(0), rows.rows, rows.columns);
  const auto centred = values.rowwise() - values.colwise().mean();
  return static_cast<double>(centred.squaredNorm()) / static_cast<double>(rows.rows * rows.columns);
}

}  // namespace

RdStatistics::RdStatistics(const Model& producer, const Model& consumer, std::span<const LayerPlan> plans,
                           const RdStatisticsOptions& options)
    : producer_(producer),
      consumer_(consumer),
      options_(options),
      pass_(producer, consumer, anchored_units(plans, depths()), options.sinks) {
  const ModelConfig& b = consumer.config();
  for (int32_t layer = 0; layer < b.layers; ++layer) {
    layers_.push_back(
        {std::vector<Eigen::MatrixXd>(static_cast<size_t>(b.kv_heads), Eigen::MatrixXd::Zero(b.head_dim, b.head_dim))});
  }
  const CodecModel source = codec_model_of(producer.config());
  const CodecModel target = codec_model_of(consumer.config());
  std::vector<AnchoredUnit> units = anchored_units(plans, depths());
  for (const AnchoredUnit& of : units) {
    const auto [x, y, h] = widths_of(of, source, target);
    units_.push_back({of, SecondMoment(x + y + h + 1), DenseMatrix(0, x), x, y});
  }
  if (options.pairs) pairs_.emplace(source, target, std::move(units), *options.pairs);
}

void RdStatistics::add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress) {
  const UnitVisitor visitor{.layer = [this](int32_t layer, const KeysValues& rows, const DenseMatrix& queries,
                                            const DenseMatrix& residual) { add_layer(layer, rows, queries, residual); },
                            .unit =
                                [this](size_t unit, const DenseMatrix& x, const DenseMatrix& yh) {
                                  add_unit(units_[unit], x, yh);
                                  if (pairs_) pairs_->add(unit, x, yh);
                                }};
  pass_.run(windows, visitor, progress);
}

const UnitPairs& RdStatistics::pairs() const {
  SCD_CHECK(pairs_.has_value(), "pairs were asked for");
  return *pairs_;
}

const RdUnitStatistics& RdStatistics::unit(const AnchoredUnit& of) const {
  const auto found = std::ranges::find(units_, of, &RdUnitStatistics::of);
  SCD_CHECK(found != units_.end(), "a unit of the plans");
  return *found;
}

void RdStatistics::add_layer(int32_t layer, const KeysValues& rows, const DenseMatrix& queries,
                             const DenseMatrix& residual) {
  RdLayerStatistics& statistics = layers_[static_cast<size_t>(layer)];
  const int64_t head_dim = consumer_.config().head_dim;
  const int64_t group = consumer_.config().query_heads / consumer_.config().kv_heads;
  for (int64_t head = 0; head < consumer_.config().query_heads; ++head) {
    const kernels::ConstMatrix of_head{queries.values.data() + head * head_dim, queries.rows, head_dim,
                                       queries.columns};
    SecondMoment moment(head_dim);
    moment.add(of_head);
    statistics.queries[static_cast<size_t>(head / group)] += moment.sum();
  }
  // Of each batch by itself: that its mean is not the text's is of no weight here.
  const auto before = static_cast<double>(statistics.tokens), more = static_cast<double>(rows.keys.rows);
  const auto blend = [&](double& mean, double of_batch) { mean = (mean * before + of_batch * more) / (before + more); };
  blend(statistics.key_variance, mean_variance(rows.keys.view()));
  blend(statistics.value_variance, mean_variance(rows.values.view()));
  for (int64_t row = 0; row < residual.rows; ++row) {
    statistics.residual_power += mean_square(residual.view().row<float>(row), residual.columns);
  }
  statistics.tokens += rows.keys.rows;
}

void RdStatistics::add_unit(RdUnitStatistics& statistics, const DenseMatrix& x, const DenseMatrix& yh) const {
  statistics.joined.add_joined(x.view(), with_ones(yh).view());

  // Every so many tokens, so that the sample is spread over the text seen while it fills.
  DenseMatrix& sample = statistics.sample;
  const int64_t stride = std::max<int64_t>(1, x.rows / 128);
  for (int64_t row = 0; row < x.rows && sample.rows < options_.sample_tokens; row += stride) {
    const auto* begin = x.view().row<float>(row);
    sample.values.insert(sample.values.end(), begin, begin + x.columns);
    ++sample.rows;
  }
}

}  // namespace scd
