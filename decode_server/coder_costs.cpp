#include "decode_server/coder_costs.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <utility>

#include "common/base/check.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/registry.h"

namespace scd {
namespace {

constexpr int64_t kTokens = 128;  // of a chunk
constexpr int kRuns = 3;          // the fastest counts: whatever else runs only adds

DenseMatrix normal_values(int64_t rows, int64_t columns) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  DenseMatrix values(rows, columns);
  std::ranges::generate(values.values, [&] { return normal(random); });
  return values;
}

template <class Work>
double fastest_seconds(const Work& work) {
  double fastest = 0;
  for (int run = 0; run < kRuns; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    fastest = run == 0 ? seconds : std::min(fastest, seconds);
  }
  return fastest;
}

CoderCost cost_of_token(size_t chunk_bytes, double chunk_seconds, double scale) {
  return {scale * static_cast<double>(chunk_bytes) / kTokens, scale * chunk_seconds / kTokens};
}

// One layer, times those that are sent.
CoderCost measure_plain(CodecId id, const CodecModel& model, int32_t layers) {
  const auto encoder = make_encoder(id, model, nullptr);
  const auto decoder = make_decoder(id, model, model, nullptr);
  const DenseMatrix state = normal_values(kTokens, model.kv_width());
  LayerChunk chunk;
  chunk.keys = chunk.values = state.view();
  ByteBuffer payload;
  DecodedLayer decoded;
  const double seconds = fastest_seconds([&] {
    payload.clear();
    encoder->encode(chunk, {}, payload);
    const auto done = decoder->decode({.layer = 0, .first_position = 0, .tokens = kTokens}, payload, decoded);
    SCD_CHECK(done.ok(), "what was encoded can be decoded");
  });
  return cost_of_token(payload.size(), seconds, layers);
}

// Of the unit with the most components, times the components of all units.
CoderCost measure_form(const RdQuantiser& quantiser, int32_t level, RdForm form) {
  const auto units = static_cast<int32_t>(quantiser.settings().deviations.size());
  int32_t widest = 0;
  int64_t components = 0;
  for (int32_t unit = 0; unit < units; ++unit) {
    components += quantiser.components(unit, level);
    if (quantiser.components(unit, level) > quantiser.components(widest, level)) widest = unit;
  }
  const int64_t measured = quantiser.components(widest, level);
  if (measured == 0) return {};
  DenseMatrix values = normal_values(measured, kTokens);
  for (int64_t row = 0; row < measured; ++row) {
    const float deviation = quantiser.settings().deviations[static_cast<size_t>(widest)][static_cast<size_t>(row)];
    for (int64_t token = 0; token < kTokens; ++token) values.at(row, token) *= deviation;
  }
  ByteBuffer body;
  DenseMatrix decoded(measured, kTokens);
  const double seconds = fastest_seconds([&] {
    body.clear();
    quantiser.encode(widest, level, std::as_const(values).view(), body, form);
    const std::string problem = quantiser.decode(widest, level, body, decoded.view());
    SCD_CHECK(problem.empty(), "what was encoded can be decoded");
  });
  return cost_of_token(body.size(), seconds, static_cast<double>(components) / static_cast<double>(measured));
}

}  // namespace

CoderCosts measure_coders(const CodecModel& model, int32_t layers, const ArtifactDecoder* artifact) {
  CoderCosts costs;
  costs.raw = measure_plain(CodecId::kRaw, model, layers);
  costs.lossless = measure_plain(CodecId::kLossless, model, layers);
  if (artifact == nullptr || !has_levels(artifact->codec)) return costs;
  const RdQuantiser quantiser(artifact->rd.quantiser);
  for (int32_t level = 0; level < quantiser.levels(); ++level) {
    costs.entropy.push_back(measure_form(quantiser, level, RdForm::kEntropy));
    costs.packed.push_back(measure_form(quantiser, level, RdForm::kPacked));
  }
  return costs;
}

}  // namespace scd
