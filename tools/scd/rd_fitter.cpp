#include "tools/scd/rd_fitter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>

#include "common/base/error.h"
#include "common/codec/calibration/rounding.h"
#include "common/codec/rd/rd_quantiser.h"
#include "kernels/linear.h"
#include "tools/scd/calibration.h"
#include "tools/scd/run_tasks.h"

namespace scd {
namespace {

// Fits run where the models do.
Algebra algebra_of(const RdConsumer& consumer) { return Algebra(consumer.model.device()); }

// The same weight for all directions of a layer's keys, and of its values: of the producer's layers, each as the
// consumer's layer at its relative depth in the unit.
Eigen::MatrixXd isotropic(const RdConsumer& consumer, const AnchoredUnit& of) {
  const CodecModel producer = codec_model_of(consumer.statistics.producer().config());
  const Eigen::Index width = producer.kv_width(), all = width * of.source.layers;
  Eigen::VectorXd diagonal(2 * all);
  for (int32_t i = 0; i < of.source.layers; ++i) {
    const int32_t layer = of.unit.first_layer + i * of.unit.layers / of.source.layers;
    const LayerMetric& metric = consumer.metrics[static_cast<size_t>(layer)];
    diagonal.segment(i * width, width).setConstant(metric.keys.trace() / static_cast<double>(width));
    diagonal.segment(all + i * width, width).setConstant(metric.values.trace() / static_cast<double>(width));
  }
  return diagonal.asDiagonal();
}

// How many directions each unit's decoder looks at: of all units those that tell most for their work, until they tell
// `share` of what all would. As many as there are where fewer would be no less work.
std::vector<int64_t> share_out(std::span<const RegressionMoment> units, std::span<const AnchorDirections> directions,
                               double share) {
  struct Direction {
    double worth;
    double told;
    size_t unit;
  };
  std::vector<Direction> all;
  double left = 0;
  for (size_t unit = 0; unit < units.size(); ++unit) {
    const auto work = static_cast<double>(units[unit].anchor_dims() + units[unit].target_dims);
    for (const double told : directions[unit].told) {
      all.push_back({told / work, told, unit});
      left += share * told;
    }
  }
  std::ranges::stable_sort(all, std::greater{}, &Direction::worth);
  std::vector<int64_t> counts(units.size(), 0);
  for (auto next = all.begin(); next != all.end() && left > 0; ++next) {
    left -= next->told;
    ++counts[next->unit];
  }
  for (size_t unit = 0; unit < units.size(); ++unit) {
    const int64_t anchor = units[unit].anchor_dims(), target = units[unit].target_dims;
    counts[unit] = std::max<int64_t>(counts[unit], std::min<int64_t>(anchor, 1));
    if (counts[unit] * (anchor + target) >= anchor * target) counts[unit] = anchor;
  }
  return counts;
}

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A unit's moment as a decoder sees it that looks at the anchor through `basis`, or at all of it. `whole` outlives it.
class SeenMoment {
 public:
  SeenMoment(const RegressionMoment& whole, const DenseMatrix& basis, const Algebra& algebra) : whole_(whole) {
    if (basis.empty()) return;
    const Eigen::Map<const RowMajor> directions(basis.values.data(), basis.rows, basis.columns);
    reduced_ = moment_of_directions(whole, directions.cast<double>(), algebra);
  }
  RegressionMoment moment() const {
    return {reduced_.size() > 0 ? reduced_ : whole_.sum, whole_.source_dims, whole_.target_dims};
  }

 private:
  RegressionMoment whole_;
  Eigen::MatrixXd reduced_;
};

// Through which a consumer's decoder looks at each unit's anchor, in BF16; empty: at all of it.
std::vector<DenseMatrix> anchor_bases(const RdConsumer& consumer, std::span<const AnchoredUnit> units,
                                      const RdFitOptions& options) {
  std::vector<DenseMatrix> bases(units.size());
  if (options.anchor_share >= 1) return bases;
  std::vector<RegressionMoment> moments;
  std::vector<AnchorDirections> directions;
  for (const AnchoredUnit& of : units) {
    moments.push_back(consumer.statistics.unit(of).moment());
    directions.push_back(moments.back().anchor_dims() > 0 ? anchor_directions(moments.back(), unit_metric(consumer, of),
                                                                              options.ridge, algebra_of(consumer))
                                                          : AnchorDirections{});
  }
  const std::vector<int64_t> counts = share_out(moments, directions, options.anchor_share);
  for (size_t i = 0; i < units.size(); ++i) {
    if (directions[i].told.size() == 0 || counts[i] == moments[i].anchor_dims()) continue;
    bases[i] = DenseMatrix(moments[i].anchor_dims(), counts[i]);
    Eigen::Map<RowMajor>(bases[i].values.data(), bases[i].rows, bases[i].columns) =
        directions[i].basis.leftCols(counts[i]).cast<float>();
    round_to_bf16(bases[i].values);
  }
  return bases;
}

// The mean over consumers of what errors cost them is what a unit's fit is about. seen: of the unit, by consumer.
RateFit fit_unit(std::span<const RdConsumer> consumers, std::span<const SeenMoment> seen, const AnchoredUnit& of,
                 const RdFitOptions& options) {
  const double share = 1.0 / static_cast<double>(consumers.size());
  if (options.variant == RdVariant::kPrincipalComponents) {
    Eigen::MatrixXd metric = share * isotropic(consumers.front(), of);
    for (const RdConsumer& further : consumers.subspan(1)) metric += share * isotropic(further, of);
    return fit_principal_components(seen.front().moment(), metric, options.ridge, algebra_of(consumers.front()));
  }
  const bool shared_heads = options.variant == RdVariant::kHeadShared && !of.unit.residual;
  std::vector<Eigen::MatrixXd> sums;
  if (shared_heads) {
    for (size_t k = 0; k < consumers.size(); ++k) {
      sums.push_back(with_shared_heads(seen[k].moment(), of.unit, codec_model_of(consumers[k].model.config())));
    }
  }
  std::vector<Eigen::MatrixXd> metrics;
  for (const RdConsumer& consumer : consumers) metrics.push_back(unit_metric(consumer, of));
  std::vector<RegressionTarget> targets;
  for (size_t k = 0; k < consumers.size(); ++k) {
    const RegressionMoment moment = seen[k].moment();
    targets.push_back(
        {{shared_heads ? sums[k] : moment.sum, moment.source_dims, moment.target_dims}, metrics[k], share});
  }
  return fit_rate(targets, options.ridge, algebra_of(consumers.front()));
}

// Components of a layer (or residual stream) at which the finest level has about four bits for each.
int64_t fixed_rank(const LayerPlan& plan, const RdFitOptions& options) {
  int32_t coded = 0;
  for (const CodedUnit& unit : plan.units) coded += unit.residual ? 1 : unit.layers;
  return std::max<int64_t>(1, std::llround(8 * options.raw_bytes / options.ratios.front() / 4 / coded));
}

// Returns the codes of the sample, by unit.
std::vector<DenseMatrix> train(const RdStatistics& statistics, std::span<const AnchoredUnit> units,
                               RdEncoderMaps& encoder) {
  std::vector<DenseMatrix> codes;
  std::vector<ComponentSample> samples;
  for (size_t i = 0; i < units.size(); ++i) {
    codes.push_back(codes_of(encoder.units[i], statistics.unit(units[i]).sample));
  }
  for (size_t i = 0; i < units.size(); ++i) {
    for (int64_t row = 0; row < codes[i].rows; row += 3) {
      samples.push_back({{codes[i].view().row<float>(row), static_cast<size_t>(codes[i].columns)},
                         encoder.quantiser.deviations[i][static_cast<size_t>(row)]});
    }
  }
  train_tables(samples, encoder.quantiser);
  return codes;
}

// The finest level of a producer that holds much less than the consumer's cache may ask for steps that are none in
// FP32.
void require_sound_step(const RdQuantiserSettings& settings, double ratio) {
  constexpr float kMostSteps = 1 << 20;  // in a deviation
  for (const std::vector<float>& deviations : settings.deviations) {
    if (deviations.front() / settings.steps.front() <= kMostSteps) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "--ratios: the lowest, " + std::to_string(static_cast<int64_t>(ratio)) +
                    " times fewer bytes than the consumer's, is more than this producer's codes need; ask for higher "
                    "ones");
  }
}

// What rounding a decoder's map as round_columns_to_int8() does loses of a value of y, as a share of its variance, mean
// over values. Small but where a map needs much more of weak components than of strong ones.
double int8_loss(const DenseMatrix& map, std::span<const float> deviations) {
  constexpr int64_t kColumns = 64;  // that a thread takes
  double variance = 0;
  for (const float deviation : deviations.first(static_cast<size_t>(map.rows)))
    variance += double{deviation} * deviation;
  std::vector<double> losses(static_cast<size_t>(map.columns));
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < map.columns; first += kColumns) {
    const auto columns = static_cast<size_t>(std::min(kColumns, map.columns - first));
    std::array<double, kColumns> largest{}, energy{};
    for (int64_t row = 0; row < map.rows; ++row) {
      const double deviation = deviations[static_cast<size_t>(row)];
      const float* values = map.view().row<float>(row) + first;
      for (size_t column = 0; column < columns; ++column) {
        const double value = values[column];
        largest[column] = std::max(largest[column], std::abs(value));
        energy[column] += value * deviation * value * deviation;
      }
    }
    for (size_t column = 0; column < columns; ++column) {
      if (energy[column] == 0) continue;
      losses[static_cast<size_t>(first) + column] = std::pow(largest[column] / 127, 2) / 12 * variance / energy[column];
    }
  }
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(map.columns);
}

// In 8 bits a value where that loses next to nothing, else in 16.
void round_map(DenseMatrix& map, std::span<const float> deviations) {
  constexpr double kMostLoss = 0.01;
  if (int8_loss(map, deviations) <= kMostLoss) {
    round_columns_to_int8(map);
  } else {
    round_to_bf16(map.values);
  }
}

RdUnitDecoder fit_unit_decoder(const RdConsumer& consumer, const AnchoredUnit& of, const DenseMatrix& basis,
                               const RdUnitEncoder& encoder, std::span<const float> deviations,
                               const RdFitOptions& options) {
  const Algebra algebra = algebra_of(consumer);
  const SeenMoment seen(consumer.statistics.unit(of).moment(), basis, algebra);
  RdUnitDecoder decoder = fit_decoder(seen.moment(), encoder, options.ridge, algebra);
  round_map(decoder.map, deviations);
  round_columns_to_int8(decoder.anchor_map);
  decoder.anchor_basis = basis;
  return decoder;
}

// bases: by unit.
RdDecoderMaps fit_decoders(const RdConsumer& consumer, std::span<const AnchoredUnit> units,
                           std::span<const DenseMatrix> bases, const RdEncoderMaps& encoder,
                           const RdFitOptions& options) {
  RdDecoderMaps maps{encoder.plan, std::vector<RdUnitDecoder>(units.size()), encoder.quantiser};
  run_tasks({units.size(), algebra_of(consumer).fits_at_once()}, [&](size_t i, size_t) {
    maps.units[i] =
        fit_unit_decoder(consumer, units[i], bases[i], encoder.units[i], encoder.quantiser.deviations[i], options);
  });
  return maps;
}

// Components that even the finest level does not send are of no use.
void drop_unsent(RdUnitEncoder& encoder, std::vector<float>& deviations, float finest_step) {
  const auto sent = std::count_if(deviations.begin(), deviations.end(),
                                  [&](float deviation) { return deviation / finest_step >= kRdSmallestRatio; });
  const auto kept = std::max<int64_t>(1, sent);
  deviations.resize(static_cast<size_t>(kept));
  encoder.offset.resize(static_cast<size_t>(kept));
  encoder.map.rows = kept;
  encoder.map.values.resize(static_cast<size_t>(kept * encoder.map.columns));
}

}  // namespace

Eigen::MatrixXd unit_metric(const RdConsumer& consumer, const AnchoredUnit& of) {
  const std::span<const LayerMetric> metrics = consumer.metrics;
  if (of.unit.residual) return residual_metric(consumer.model, of, metrics, consumer.statistics);
  const Eigen::Index width = metrics.front().keys.rows();
  const Eigen::Index all = width * of.unit.layers;
  Eigen::MatrixXd metric = Eigen::MatrixXd::Zero(2 * all, 2 * all);
  for (int32_t i = 0; i < of.unit.layers; ++i) {
    const LayerMetric& layer = metrics[static_cast<size_t>(of.unit.first_layer + i)];
    metric.block(i * width, i * width, width, width) = layer.keys;
    metric.block(all + i * width, all + i * width, width, width) = layer.values;
  }
  return metric;
}

DenseMatrix codes_of(const RdUnitEncoder& encoder, const DenseMatrix& x) {
  DenseMatrix codes(encoder.map.rows, x.rows);
  for (int64_t row = 0; row < codes.rows; ++row) {
    std::fill_n(codes.view().row<float>(row), codes.columns, encoder.offset[static_cast<size_t>(row)]);
  }
  kernels::gemm_f32({.a = encoder.map.view(), .b = x.view(), .c = codes.view(), .transpose_b = true, .beta = 1.0f});
  return codes;
}

RdFit fit_rd(std::span<const RdConsumer> consumers, const LayerPlan& plan, const RdFitOptions& options) {
  RdFit fit;
  fit.encoder.plan = plan;
  std::vector<std::vector<LayerMetric>> metrics;
  for (const RdConsumer& consumer : consumers) metrics.push_back(metrics_of(options.variant, consumer.metrics));
  std::vector<RdConsumer> weighted;
  for (size_t k = 0; k < consumers.size(); ++k) {
    weighted.push_back({consumers[k].model, consumers[k].statistics, metrics[k]});
  }
  const RdStatistics& statistics = consumers.front().statistics;  // of x they all say the same
  const std::vector<AnchoredUnit> units = anchored_units(plan, statistics.depths());
  const auto [producer_layers, consumer_layers] = statistics.depths();
  std::vector<std::vector<DenseMatrix>> bases;  // by consumer and unit
  for (const RdConsumer& consumer : weighted) bases.push_back(anchor_bases(consumer, units, options));
  std::vector<RateFit> rates(units.size());
  run_tasks({units.size(), algebra_of(consumers.front()).fits_at_once()}, [&](size_t i, size_t) {
    const AnchoredUnit& of = units[i];
    std::vector<SeenMoment> seen;
    for (size_t k = 0; k < consumers.size(); ++k) {
      seen.emplace_back(consumers[k].statistics.unit(of).moment(), bases[k][i], algebra_of(consumers[k]));
    }
    rates[i] = fit_unit(weighted, seen, of, options);
    if (options.variant == RdVariant::kFixedRank) {
      fix_rank(rates[i], fixed_rank(plan, options) * (of.unit.residual ? 1 : of.unit.layers));
    }
    round_to_bf16(rates[i].encoder.map.values);
  });
  for (size_t i = 0; i < units.size(); ++i) {
    if (producer_layers != consumer_layers) fit.encoder.sources.push_back(units[i].source);
    fit.encoder.units.push_back(std::move(rates[i].encoder));
    fit.encoder.quantiser.deviations.push_back(std::move(rates[i].deviations));
    fit.units.push_back({units[i], rates[i].energy, rates[i].unpredictable});
  }
  const std::vector<DenseMatrix> codes = train(statistics, units, fit.encoder);
  for (const double ratio : options.ratios) {
    fit.encoder.quantiser.steps.push_back(step_for(fit.encoder.quantiser, 8 * options.raw_bytes / ratio));
  }
  require_sound_step(fit.encoder.quantiser, options.ratios.front());
  fit.bounds = rate_bounds(fit.encoder.quantiser, codes);
  for (size_t i = 0; i < units.size(); ++i) {
    drop_unsent(fit.encoder.units[i], fit.encoder.quantiser.deviations[i], fit.encoder.quantiser.steps.front());
  }
  for (size_t k = 0; k < consumers.size(); ++k) {
    fit.decoders.push_back(fit_decoders(consumers[k], units, bases[k], fit.encoder, options));
  }
  return fit;
}

// Codes have no mean.
RdDecoderMaps without_codes(RdDecoderMaps maps) {
  for (RdUnitDecoder& unit : maps.units) {
    std::ranges::fill(unit.map.values, 0.0f);
    unit.network = {};
  }
  return maps;
}

RdDecoderMaps fit_rd_decoder(const RdConsumer& consumer, const RdEncoderMaps& encoder, const RdFitOptions& options) {
  const std::vector<AnchoredUnit> units = anchored_units(encoder.plan, consumer.statistics.depths());
  return fit_decoders(consumer, units, anchor_bases(consumer, units, options), encoder, options);
}

}  // namespace scd
