#include "common/codec/droidspeak_codec.h"

#include <algorithm>
#include <utility>

#include "common/codec/payload.h"
#include "common/codec/raw_body.h"

namespace scd {
namespace {

void require(bool fits, const std::string& what) {
  if (!fits) throw Error(ErrorCode::kFailedPrecondition, "codec droidspeak: " + what);
}

void require_plan(const LayerPlan& plan, const CodecModel& model) {
  const std::string problem = plan_problem(plan, model.layers);
  require(problem.empty(), "plan: " + problem);
  require(!plan.predicted, "plan: its units are predicted, the codec's are sent as they are");
  for (const CodedUnit& unit : plan.units) {
    require(unit.residual || unit.layers == 1, "plan: layers from " + std::to_string(unit.first_layer) +
                                                   " on are one unit; keys and values go layer by layer");
  }
}

bool is_span(const LayerPlan& plan, int32_t layer) {
  const size_t unit = plan.unit_at(layer);
  return unit < plan.units.size() && plan.units[unit].residual;
}

size_t residual_bytes(const CodecModel& model, int64_t tokens) {
  return static_cast<size_t>(tokens * model.hidden) * 2;
}

}  // namespace

DroidSpeakEncoder::DroidSpeakEncoder(const CodecModel& producer, LayerPlan plan, const Sha256Digest& id)
    : producer_(producer),
      plan_(std::move(plan)),
      raw_(std::make_unique<RawBody>(producer.kv_width()), producer),
      id_(id) {
  require_plan(plan_, producer_);
}

Result<LayerPlan> DroidSpeakEncoder::plan(int32_t exact_layers) const {
  return calibrated_plan(plan_, exact_layers, "droidspeak");
}

bool DroidSpeakEncoder::needs_residual(int32_t layer) const { return is_span(plan_, layer); }

void DroidSpeakEncoder::encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const {
  if (!is_span(plan_, chunk.layer)) return raw_.encode(chunk, caps, out);
  const kernels::ConstMatrix& residual = chunk.residual;
  SCD_CHECK(residual.rows >= 1 && residual.rows <= kMaxPayloadTokens, "tokens of a chunk");
  SCD_CHECK(residual.columns == producer_.hidden && residual.dtype == kernels::DType::kF32, "a residual stream");
  append_payload_header({PayloadKind::kResidual, static_cast<uint16_t>(residual.rows)}, out);
  out.reserve(out.size() + residual_bytes(producer_, residual.rows));
  for (int64_t row = 0; row < residual.rows; ++row) {
    append_bf16({residual.row<float>(row), static_cast<size_t>(residual.columns)}, out);
  }
}

DroidSpeakDecoder::DroidSpeakDecoder(const CodecModel& producer, const CodecModel& consumer, LayerPlan plan,
                                     const Sha256Digest& encoder_id)
    : consumer_(consumer),
      plan_(std::move(plan)),
      raw_(std::make_unique<RawBody>(producer.kv_width()), producer, consumer),
      encoder_id_(encoder_id) {
  require_plan(plan_, consumer_);
  require(producer.hidden == consumer.hidden, "the producer's residual stream has " + std::to_string(producer.hidden) +
                                                  " values a token, the consumer's " + std::to_string(consumer.hidden));
}

Result<LayerPlan> DroidSpeakDecoder::plan(int32_t exact_layers) const {
  return calibrated_plan(plan_, exact_layers, "droidspeak");
}

size_t DroidSpeakDecoder::max_payload_bytes(int64_t tokens) const {
  return std::max(raw_.max_payload_bytes(tokens), kPayloadHeaderBytes + residual_bytes(consumer_, tokens));
}

Result<Done> DroidSpeakDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload,
                                       DecodedLayer& out) const {
  const size_t unit = plan_.unit_at(place.layer);
  if (unit == plan_.units.size()) return payload_failure(place, "no unit begins there: " + to_string(plan_));
  return plan_.units[unit].residual ? decode_residual(place, payload, out) : raw_.decode(place, payload, out);
}

Result<Done> DroidSpeakDecoder::decode_residual(const PayloadPlace& place, std::span<const std::byte> payload,
                                                DecodedLayer& out) const {
  const auto header = read_payload_header(place, payload);
  if (!header) return header.failure();
  if (header.value() != PayloadHeader{PayloadKind::kResidual, header.value().tokens}) {
    return payload_failure(place, "not a payload of a residual stream");
  }
  const auto body = payload.subspan(kPayloadHeaderBytes);
  const size_t expected = residual_bytes(consumer_, place.tokens);
  if (body.size() != expected) return payload_failure(place, wrong_length(body.size(), expected));
  out.kind = DecodedKind::kResidual;
  out.tokens = place.tokens;
  out.keys.clear();
  out.values.clear();
  out.hidden.resize(expected / 2);
  if (!read_bf16(body, out.hidden)) return payload_failure(place, "a value is not finite");
  return Done{};
}

}  // namespace scd
