#include "tools/scd/made_up_codec.h"

#include <cmath>
#include <span>
#include <utility>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/rd/rd_state.h"
#include "kernels/elementwise.h"

namespace scd {
namespace {

constexpr uint64_t kSeeds = 1'000'003;  // apart from those of models with random weights: theirs are small numbers

// Rows of unit length over what codes are made of, times the deviations.
RdUnitEncoder made_up_encoder(const std::vector<float>& deviations, int64_t source_width, int64_t anchor_width,
                              uint64_t seed) {
  const auto rows = static_cast<int64_t>(deviations.size());
  DenseMatrix map(rows, source_width + anchor_width);
  const int64_t seen = anchor_width > 0 ? anchor_width : source_width;
  const int64_t first = map.columns - seen;
  const DenseMatrix directions = normal_matrix(rows, seen, seed, 1.0f / std::sqrt(static_cast<float>(seen)));
#pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    const float deviation = deviations[static_cast<size_t>(row)];
    for (int64_t i = 0; i < seen; ++i) map.at(row, first + i) = deviation * directions.at(row, i);
  }
  return {std::move(map), std::vector<float>(deviations.size())};
}

}  // namespace

DenseMatrix normal_matrix(int64_t rows, int64_t columns, uint64_t seed, float deviation) {
  DenseMatrix matrix(rows, columns);
  if (!matrix.empty()) kernels::fill_normal(matrix.view(), seed, deviation);
  return matrix;
}

std::vector<float> falling_deviations(int64_t count, double first, double last) {
  std::vector<float> deviations;
  for (int64_t i = 0; i < count; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(count);
    deviations.push_back(static_cast<float>(first * std::pow(last / first, share)));
  }
  return deviations;
}

RdQuantiserSettings made_up_quantiser(std::vector<std::vector<float>> deviations, std::vector<float> steps) {
  RdQuantiserSettings settings;
  settings.deviations = std::move(deviations);
  settings.steps = std::move(steps);
  const DenseMatrix normal = normal_matrix(1, 1 << 16, kSeeds);
  const ComponentSample sample{normal.values, 1.0f};
  train_tables({&sample, 1}, settings);
  return settings;
}

MadeUpUnit made_up_unit(const MadeUpUnitArgs& args) {
  const CodedUnit& unit = args.plan.units[args.unit];
  const UnitSource source = source_of(args.plan, args.unit, {args.producer.layers, args.consumer.layers});
  const bool anchored = args.plan.anchor_of(args.unit) >= 0;
  const auto components = static_cast<int64_t>(args.deviations.size());
  const int64_t width = rd_state_width(args.consumer, unit);
  const int64_t directions = anchored ? args.consumer.hidden : 0;
  const float gain = 1.0f / std::sqrt(static_cast<float>(components + directions));
  const uint64_t seed = kSeeds * (args.seed + 1) + 3 * args.unit;
  return {made_up_encoder(args.deviations, rd_source_width(args.producer, unit, source),
                          anchored ? args.producer.hidden : 0, seed),
          {.map = normal_matrix(components, width, seed + 1, gain),
           .anchor_map = normal_matrix(directions, width, seed + 2, gain),
           .mean = std::vector<float>(static_cast<size_t>(width))}};
}

}  // namespace scd
