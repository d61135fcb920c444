#include "tools/scd/rd_statistics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/base/check.h"
#include "kernels/column_sums.h"
#include "kernels/device.h"
#include "tools/scd/calibration.h"

namespace scd {
namespace {

// Of a matrix's values.
struct ValueMoments {
  explicit ValueMoments(kernels::ConstMatrix rows) {
    std::vector<double> sums(static_cast<size_t>(rows.columns)), squares(sums.size());
    kernels::column_sums(rows, sums, squares);
    const auto count = static_cast<double>(rows.rows), columns = static_cast<double>(rows.columns);
    for (size_t i = 0; i < sums.size(); ++i) {
      mean_square += squares[i] / count / columns;
      mean_variance += (squares[i] / count - std::pow(sums[i] / count, 2)) / columns;
    }
  }
  double mean_square = 0;
  double mean_variance = 0;  // of a column
};

}  // namespace

RdStatistics::RdStatistics(const Model& producer, const Model& consumer, std::span<const LayerPlan> plans,
                           const RdStatisticsOptions& options)
    : producer_(producer),
      consumer_(consumer),
      options_(options),
      pass_(producer, consumer, anchored_units(plans, depths()), options.sinks) {
  const ModelConfig& b = consumer.config();
  layers_.resize(static_cast<size_t>(b.layers));
  for (RdLayerStatistics& layer : layers_) {
    for (int32_t head = 0; head < b.kv_heads; ++head) {
      layer.queries.emplace_back(b.query_heads / b.kv_heads * b.head_dim, consumer.device());
    }
  }
  const CodecModel source = codec_model_of(producer.config());
  const CodecModel target = codec_model_of(consumer.config());
  std::vector<AnchoredUnit> units = anchored_units(plans, depths());
  for (const AnchoredUnit& of : units) {
    const auto [x, y, h] = widths_of(of, source, target);
    units_.push_back({of, SecondMoment(x + y + h + 1, consumer.device()), DenseMatrix(0, x), x, y});
  }
  if (options.pairs) pairs_.emplace(source, target, std::move(units), *options.pairs);
}

void RdStatistics::add_all(std::span<const TokenWindow> windows, const std::function<void(double)>& progress) {
  const UnitVisitor visitor{.layer = [this](int32_t layer, const LayerRows& rows) { add_layer(layer, rows); },
                            .unit =
                                [this](size_t unit, const UnitRows& rows) {
                                  add_unit(units_[unit], rows);
                                  if (pairs_) pairs_->add(unit, rows);
                                }};
  pass_.run(windows, visitor, progress);
  for (RdUnitStatistics& unit : units_) unit.joined.leave_device();
  for (RdLayerStatistics& layer : layers_) {
    for (SecondMoment& of_head : layer.queries) of_head.leave_device();
  }
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

void RdStatistics::add_layer(int32_t layer, const LayerRows& rows) {
  RdLayerStatistics& statistics = layers_[static_cast<size_t>(layer)];
  kernels::ConstMatrix of_head = rows.queries;
  of_head.columns /= std::ssize(statistics.queries);
  for (SecondMoment& queries : statistics.queries) {
    queries.add(of_head);
    of_head.data = of_head.row<float>(0) + of_head.columns;
  }
  // Of each batch by itself: that its mean is not the text's is of no weight here.
  const auto before = static_cast<double>(statistics.tokens), more = static_cast<double>(rows.keys.rows);
  const auto blend = [&](double& mean, double of_batch) { mean = (mean * before + of_batch * more) / (before + more); };
  blend(statistics.key_variance, ValueMoments(rows.keys).mean_variance);
  blend(statistics.value_variance, ValueMoments(rows.values).mean_variance);
  statistics.residual_power += ValueMoments(rows.residual).mean_square * more;
  statistics.tokens += rows.keys.rows;
}

void RdStatistics::add_unit(RdUnitStatistics& statistics, const UnitRows& rows) const {
  statistics.joined.add(rows.all);

  // Every so many tokens, so that the sample is spread over the text seen while it fills.
  DenseMatrix& sample = statistics.sample;
  const kernels::ConstMatrix x = rows.x();
  const int64_t stride = std::max<int64_t>(1, x.rows / 128);
  DenseMatrix row_here(1, x.columns);
  for (int64_t row = 0; row < x.rows && sample.rows < options_.sample_tokens; row += stride) {
    kernels::ConstMatrix one = x;
    one.data = x.row<float>(row);
    one.rows = 1;
    kernels::copy(one, row_here.view());
    sample.values.insert(sample.values.end(), row_here.values.begin(), row_here.values.end());
    ++sample.rows;
  }
}

}  // namespace scd
