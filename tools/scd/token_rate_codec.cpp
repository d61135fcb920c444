#include "tools/scd/token_rate_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "common/base/check.h"
#include "common/codec/payload.h"
#include "common/log/progress.h"

namespace scd {
namespace {

constexpr int32_t kCentre = 128;  // of the 256 symbols of rANS
constexpr int32_t kLargestSymbol = 127;

using TokensByClass = std::map<int8_t, std::vector<int64_t>>;  // rising

TokensByClass by_class(std::span<const int8_t> classes) {
  TokensByClass tokens;
  for (size_t i = 0; i < classes.size(); ++i) tokens[classes[i]].push_back(static_cast<int64_t>(i));
  return tokens;
}

// No code by these frequencies needs less.
size_t class_bytes(const TokensByClass& tokens, size_t count) {
  double bits = 0;
  for (const auto& [of, columns] : tokens) {
    const auto share = static_cast<double>(columns.size()) / static_cast<double>(count);
    bits -= static_cast<double>(columns.size()) * std::log2(share);
  }
  return static_cast<size_t>(std::ceil(bits / 8));
}

RansFrequencies frequencies_of(const DenseMatrix& tables, int64_t table) {
  RansFrequencies frequencies;
  for (int64_t i = 0; i < tables.columns; ++i) {
    frequencies[static_cast<size_t>(i)] = static_cast<uint16_t>(tables.at(table, i));
  }
  return frequencies;
}

class TokenRateEncoder final : public Encoder {
 public:
  TokenRateEncoder(const RdEncoder& encoder, LayerPlan plan, const TokenRateQuantiser& quantiser, TokenRates& rates)
      : encoder_(encoder), plan_(std::move(plan)), quantiser_(quantiser), rates_(rates) {}

  const Sha256Digest& id() const override { return encoder_.id(); }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return encoder_.plan(exact_layers); }
  UnitSource source(const LayerPlan& plan, size_t unit) const override { return encoder_.source(plan, unit); }
  bool needs_residual(int32_t layer) const override { return encoder_.needs_residual(layer); }
  int32_t levels() const override { return encoder_.levels(); }

  void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const override {
    const size_t unit = plan_.unit_at(chunk.layer);
    const DenseMatrix codes = encoder_.codes(chunk, quantiser_.components(unit));
    rates_.see(unit, chunk.first_position, codes);
    const int64_t tokens = codes.columns;
    const std::span<const int8_t> classes = rates_.classes(unit, chunk.first_position, tokens);
    const int64_t components = quantiser_.components(unit, caps.level, *std::ranges::min_element(classes));
    append_payload_header({PayloadKind::kRd, static_cast<uint16_t>(tokens), static_cast<uint16_t>(components),
                           static_cast<uint16_t>(caps.level)},
                          out);
    quantiser_.encode(unit, caps.level, classes, codes.top(components), out);
  }

 private:
  const RdEncoder& encoder_;
  LayerPlan plan_;
  const TokenRateQuantiser& quantiser_;
  TokenRates& rates_;
};

class TokenRateDecoder final : public Decoder {
 public:
  TokenRateDecoder(const RdDecoder& decoder, LayerPlan plan, const TokenRateQuantiser& quantiser,
                   const TokenRates& rates)
      : decoder_(decoder), plan_(std::move(plan)), quantiser_(quantiser), rates_(rates) {}

  const Sha256Digest& encoder_id() const override { return decoder_.encoder_id(); }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return decoder_.plan(exact_layers); }
  std::optional<int32_t> calibrated_exact_layers() const override { return decoder_.calibrated_exact_layers(); }
  bool needs_anchor(int32_t layer) const override { return decoder_.needs_anchor(layer); }
  size_t max_payload_bytes(int64_t tokens) const override {
    return decoder_.max_payload_bytes(tokens) + static_cast<size_t>(tokens);
  }

  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override {
    const auto header = read_payload_header(place, payload);
    if (!header) return header.failure();
    const size_t unit = plan_.unit_at(place.layer);
    DenseMatrix codes(header.value().first_rank, place.tokens);
    quantiser_.decode(unit, header.value().second_rank, rates_.classes(unit, place.first_position, place.tokens),
                      payload.subspan(kPayloadHeaderBytes), codes.view());
    decoder_.decode_codes(place, codes.view(), out);
    return Done{};
  }

 private:
  const RdDecoder& decoder_;
  LayerPlan plan_;
  const TokenRateQuantiser& quantiser_;
  const TokenRates& rates_;
};

}  // namespace

TokenRateQuantiser::TokenRateQuantiser(RdQuantiserSettings settings) : settings_(std::move(settings)) {
  for (int64_t table = 0; table < settings_.frequencies.rows; ++table) {
    tables_.emplace_back(frequencies_of(settings_.frequencies, table));
  }
}

float TokenRateQuantiser::step(int32_t level, int8_t token_class) const {
  return settings_.steps[static_cast<size_t>(level)] * std::exp2(0.5f * static_cast<float>(token_class));
}

int64_t TokenRateQuantiser::components(size_t unit, int32_t level, int8_t token_class) const {
  const std::vector<float>& deviations = settings_.deviations[unit];
  return std::ranges::upper_bound(deviations, kRdSmallestRatio * step(level, token_class), std::greater{}) -
         deviations.begin();
}

void TokenRateQuantiser::encode(size_t unit, int32_t level, std::span<const int8_t> classes,
                                kernels::ConstMatrix values, ByteBuffer& out) const {
  const TokensByClass tokens = by_class(classes);
  std::vector<std::pair<size_t, std::vector<uint8_t>>> runs;  // with their tables
  std::vector<int32_t> escapes;
  for (int64_t row = 0; row < values.rows; ++row) {
    for (const auto& [of, columns] : tokens) {
      if (row >= components(unit, level, of)) continue;
      const float own = step(level, of);
      auto& [table, run] = runs.emplace_back(rd_table_of(settings_.deviations[unit][static_cast<size_t>(row)] / own),
                                             std::vector<uint8_t>{});
      for (const int64_t column : columns) {
        const int32_t integer = rd_quantise(values.row<float>(row)[column], own);
        const bool known = std::abs(integer) <= kLargestSymbol &&
                           tables_[table].frequency(static_cast<uint8_t>(integer + kCentre)) > 0;
        run.push_back(known ? static_cast<uint8_t>(integer + kCentre) : kRdEscape);
        if (!known) escapes.push_back(integer);
      }
    }
  }
  RansEncoder encoder;
  for (const auto& [table, run] : runs) encoder.put(tables_[table], run);
  const size_t start = out.size();
  out.resize(start + sizeof(uint32_t));
  encoder.finish(out);
  const auto length = static_cast<uint32_t>(out.size() - start - sizeof(uint32_t));
  std::memcpy(out.data() + start, &length, sizeof length);
  const auto bytes = std::as_bytes(std::span(escapes));
  out.insert(out.end(), bytes.begin(), bytes.end());
  out.resize(out.size() + class_bytes(tokens, classes.size()));
}

void TokenRateQuantiser::decode(size_t unit, int32_t level, std::span<const int8_t> classes,
                                std::span<const std::byte> body, kernels::Matrix values) const {
  const TokensByClass tokens = by_class(classes);
  uint32_t length;
  std::memcpy(&length, body.data(), sizeof length);
  RansDecoder decoder(body.subspan(sizeof length, length));
  auto escapes = body.subspan(sizeof length + length);
  for (int64_t row = 0; row < values.rows; ++row) {
    std::fill_n(values.row<float>(row), values.columns, 0.0f);
    for (const auto& [of, columns] : tokens) {
      if (row >= components(unit, level, of)) continue;
      const float own = step(level, of);
      const size_t table = rd_table_of(settings_.deviations[unit][static_cast<size_t>(row)] / own);
      std::vector<uint8_t> run(columns.size());
      decoder.take(tables_[table], run);
      for (size_t i = 0; i < run.size(); ++i) {
        int32_t integer = run[i] - kCentre;
        if (run[i] == kRdEscape) {
          std::memcpy(&integer, escapes.data(), sizeof integer);
          escapes = escapes.subspan(sizeof integer);
        }
        values.row<float>(row)[columns[i]] = rd_value_of(integer, {own, settings_.shifts[table]});
      }
    }
  }
  SCD_CHECK(decoder.finished(), "a body that encode() made");
}

struct TokenRateCodec::State {
  const TokenRates::Args args;
  TokenRates rates;
  TokenRateQuantiser quantiser;
  TokenRateEncoder encoder;
  TokenRateDecoder decoder;

  explicit State(const Args& of)
      : args(of.rates),
        rates(of.rates),
        quantiser(of.quantiser),
        encoder(of.encoder, args.plan, quantiser, rates),
        decoder(of.decoder, args.plan, quantiser, rates) {}
};

TokenRateCodec::TokenRateCodec(const Args& args) : state_(std::make_unique<State>(args)) {}
TokenRateCodec::~TokenRateCodec() = default;

void TokenRateCodec::learn(std::span<const TokenWindow> windows) {
  State& state = *state_;
  if (state.args.queries != RateQueries::kLearned) return;
  size_t longest = 0;
  for (const TokenWindow& window : windows) longest = std::max(longest, window.size());
  CacheExperiment experiment(state.args.producer, state.args.consumer, static_cast<int64_t>(longest),
                             state.args.experiment);
  const Encoder* const encoders[] = {&state.encoder};
  state.rates.begin_learning(state.quantiser.deviations());
  Progress progress("learning rates of tokens");
  for (size_t i = 0; i < windows.size(); ++i) {
    if (handover_tokens(std::ssize(windows[i]), state.args.experiment.suffix) <= state.args.experiment.sinks) continue;
    state.rates.set_window(windows[i]);
    experiment.set_prompt(windows[i], encoders);
    (void)experiment.rebuild(state.encoder, state.decoder, {});
    progress.update(static_cast<double>(i + 1) / static_cast<double>(windows.size()));
  }
  progress.finish();
  state.rates.end_learning();
}

void TokenRateCodec::set_window(const TokenWindow& window) { state_->rates.set_window(window); }
const Encoder& TokenRateCodec::encoder() const { return state_->encoder; }
const Decoder& TokenRateCodec::decoder() const { return state_->decoder; }

}  // namespace scd
