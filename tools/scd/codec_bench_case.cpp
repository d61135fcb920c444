#include "tools/scd/codec_bench_case.h"

#include <utility>

#include "common/codec/rd/rd_codec.h"
#include "kernels/linear.h"
#include "tools/scd/made_up_codec.h"

namespace scd {

// What encoder and decoder are given of one unit.
struct CodecBenchCase::State {
  DenseMatrix keys, values, residual, anchor;
};

CodecBenchCase::CodecBenchCase(const CodecBenchMaps& maps, int64_t tokens)
    : tokens_(tokens), quantiser_(maps.encoder.quantiser) {
  uint32_t seed = 100;
  const auto normal = [&](int64_t rows, int64_t columns) { return normal_matrix(rows, columns, seed++); };
  const CodecModel& model = maps.producer;
  const LayerPlan& plan = maps.encoder.plan;
  auto states = std::make_shared<std::vector<State>>();  // of the two calls below
  for (size_t index = 0; index < plan.units.size(); ++index) {
    const CodedUnit& coded = plan.units[index];
    const DenseMatrix& encoder_map = maps.encoder.units[index].map;
    const RdUnitDecoder& decoder_maps = maps.decoder.units[index];
    CodecBenchUnit unit{.encoder_map = encoder_map,
                        .decoder = decoder_maps,
                        .source = normal(tokens, encoder_map.columns),
                        .anchor = normal(tokens, decoder_maps.anchor_dims()),
                        .codes = normal(encoder_map.rows, tokens)};
    for (int64_t row = 0; row < unit.codes.rows; ++row) {
      const float deviation = quantiser_.deviations[index][static_cast<size_t>(row)];
      for (int64_t i = 0; i < tokens; ++i) unit.codes.at(row, i) *= deviation;
    }
    if (kernels::native_precision() == kernels::DType::kBF16) {
      unit.rounded = std::make_shared<const RdRoundedUnit>(decoder_maps);
    }
    const int64_t width = model.kv_width() * coded.layers;
    states->push_back(
        {normal(tokens, width), normal(tokens, width), normal(tokens, model.hidden), normal(tokens, model.hidden)});
    raw_bytes_ += static_cast<double>(4 * tokens * width);
    units_.push_back(std::move(unit));
  }
  const auto encoder = std::make_shared<const RdEncoder>(model, maps.encoder, Sha256Digest{});
  const auto decoder = std::make_shared<const RdDecoder>(maps.consumer, maps.decoder, Sha256Digest{},
                                                         kernels::Device::kCpu, kernels::native_precision());
  encode_ = [encoder, states, plan](size_t unit, int32_t level) {
    const State& state = (*states)[unit];
    ByteBuffer payload;
    encoder->encode({.layer = plan.units[unit].first_layer,
                     .first_position = 0,
                     .keys = state.keys.view(),
                     .values = state.values.view(),
                     .attention_input = {},
                     .residual = state.residual.view(),
                     .anchor = state.anchor.view()},
                    {.level = level}, payload);
    return payload;
  };
  decode_ = [decoder, states, plan, tokens, out = std::make_shared<DecodedLayer>()](
                size_t unit, std::span<const std::byte> payload) {
    const PayloadPlace place{plan.units[unit].first_layer, 0, tokens, (*states)[unit].anchor.view()};
    std::move(decoder->decode(place, payload, *out)).value_or_throw();
  };
}

}  // namespace scd
