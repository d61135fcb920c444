#include "tools/scd/rd_networks.h"

#include <utility>

#include "common/base/check.h"
#include "common/codec/calibration/network.h"
#include "common/codec/rd/rd_state.h"

namespace scd {
namespace {

// Of a unit's loss: less is not worth the consumer's time, nor more than the choice of the epoch may feign.
constexpr double kLeastGain = 0.02;

// [c h] as a decoder has them, and what its regression leaves of y.
struct TrainingRows {
  DenseMatrix inputs;     // [tokens, components + hidden of B]
  DenseMatrix left_over;  // [tokens, dims of y]
};

// Inputs are many and samples few: without strong weight decay the loss on validation text soon rises again.
NetworkOptions network_options(const RdNetworkOptions& options, kernels::Device device) {
  return {.width = options.width,
          .max_epochs = 48,
          .patience = 5,
          .learning_rate = 2e-3f,
          .weight_decay = 3.0f,
          .seed = options.seed,
          .device = device};
}

// Row after row another level: all of them as often.
DenseMatrix codes_of_all_levels(const RdQuantiser& quantiser, int32_t unit, DenseMatrix codes) {
  const DenseMatrix fine = codes;
  for (int32_t level = 0; level < quantiser.levels(); ++level) {
    const DenseMatrix read = read_back(quantiser, unit, level, fine);
    for (int64_t component = 0; component < codes.rows; ++component) {
      for (int64_t token = level; token < codes.columns; token += quantiser.levels()) {
        codes.at(component, token) = read.at(component, token);
      }
    }
  }
  return codes;
}

TrainingRows training_rows(const UnitPairs::Rows& rows, const RdQuantiser& quantiser, int32_t unit,
                           const RdUnitEncoder& encoder, const RdUnitDecoder& decoder) {
  const DenseMatrix codes = codes_of_all_levels(quantiser, unit, codes_of(encoder, rows.x));
  const DenseMatrix by_token = transposed(codes);
  TrainingRows training{side_by_side(by_token.view(), rows.h.view()),
                        reconstruct(decoder, codes.view(), rows.h.view())};
  std::vector<float>& values = training.left_over.values;
  for (size_t i = 0; i < values.size(); ++i) values[i] = rows.y.values[i] - values[i];
  return training;
}

}  // namespace

std::vector<RdNetworkLoss> fit_networks(const RdConsumer& consumer, const UnitPairs& validation,
                                        const RdEncoderMaps& encoder, const RdNetworkOptions& options,
                                        RdDecoderMaps& decoder) {
  const std::vector<AnchoredUnit> units = anchored_units(encoder.plan, consumer.statistics.depths());
  const RdQuantiser quantiser(encoder.quantiser);
  std::vector<RdNetworkLoss> losses;
  for (size_t i = 0; i < units.size(); ++i) {
    SCD_CHECK(decoder.units[i].network.empty(), "a decoder of regressions");
    const auto rows_of = [&](const UnitPairs& pairs) {
      return training_rows(pairs.rows(units[i]), quantiser, static_cast<int32_t>(i), encoder.units[i],
                           decoder.units[i]);
    };
    const TrainingRows fit = rows_of(consumer.statistics.pairs()), held_out = rows_of(validation);
    TrainedNetwork trained =
        fit_network({fit.inputs, fit.left_over, held_out.inputs, held_out.left_over}, unit_metric(consumer, units[i]),
                    network_options(options, consumer.model.device()), Algebra(consumer.model.device()));
    const bool worth_it = trained.held_out_loss <= (1 - kLeastGain) * trained.held_out_power;
    losses.push_back({trained.held_out_power, worth_it ? trained.held_out_loss : trained.held_out_power});
    if (worth_it) decoder.units[i].network = std::move(trained.network);
    if (options.progress) options.progress(static_cast<double>(i + 1) / static_cast<double>(units.size()));
  }
  return losses;
}

}  // namespace scd
