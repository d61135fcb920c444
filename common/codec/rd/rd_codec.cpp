#include "common/codec/rd/rd_codec.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "common/codec/rd/rd_blocks.h"
#include "common/codec/rd/rd_state.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"

namespace scd {
namespace {

void require(bool fits, const std::string& what) {
  if (!fits) throw Error(ErrorCode::kFailedPrecondition, "codec rd: " + what);
}

// Plan, maps and deviations of one side belong together and to the model.
template <class Unit>
void require_units(const LayerPlan& plan, const std::vector<Unit>& units, const RdQuantiser& quantiser, int32_t layers,
                   const char* side) {
  const std::string problem = rd_plan_problem(plan, layers);
  require(problem.empty(), std::string(side) + " plan: " + problem);
  const auto& deviations = quantiser.settings().deviations;
  require(plan.units.size() == units.size() && deviations.size() == units.size(),
          std::string(side) + " of " + std::to_string(units.size()) + " units, plan of " +
              std::to_string(plan.units.size()) + ", quantiser of " + std::to_string(deviations.size()));
}

void require_map(bool fits, const char* side, const CodedUnit& unit) {
  require(fits, std::string(side) + " of the unit from layer " + std::to_string(unit.first_layer) +
                    " on does not fit the model's shape");
}

// hidden: of the anchor, 0 without one.
bool fits_anchor(const RdUnitDecoder& unit, int64_t hidden) {
  const DenseMatrix &basis = unit.anchor_basis, &map = unit.anchor_map;
  if (hidden == 0) return map.empty() && basis.empty();
  const bool seen =
      basis.empty() ? map.rows == hidden : basis.rows == hidden && basis.columns <= hidden && map.rows == basis.columns;
  return seen && map.columns == std::ssize(unit.mean);
}

// Empty: the producer is as deep as the consumer.
std::vector<UnitSource> checked_sources(const LayerPlan& plan, std::vector<UnitSource> sources,
                                        const CodecModel& producer) {
  if (sources.empty()) {
    for (size_t unit = 0; unit < plan.units.size(); ++unit) {
      sources.push_back(source_of(plan, unit, {producer.layers, producer.layers}));
    }
  }
  require(sources.size() == plan.units.size(),
          "encoder of " + std::to_string(plan.units.size()) + " units, sources of " + std::to_string(sources.size()));
  for (size_t unit = 0; unit < sources.size(); ++unit) {
    const UnitSource& source = sources[unit];
    const bool inside = source.first_layer >= 0 && source.layers >= 1 && source.first_layer < producer.layers &&
                        source.layers <= producer.layers - source.first_layer;
    const int32_t last = plan.units[unit].residual ? source.first_layer : source.end() - 1;
    require(inside && source.anchor <= last && (source.anchor >= 0) == (plan.anchor_of(unit) >= 0),
            "the source of the unit from layer " + std::to_string(plan.units[unit].first_layer) +
                " on does not fit the producer's " + std::to_string(producer.layers) + " layers");
  }
  return sources;
}

// Of the consumer: where the producer is as deep, its own.
int32_t planned_layers(const RdEncoderMaps& maps, const CodecModel& producer) {
  return maps.sources.empty() || maps.plan.units.empty() ? producer.layers : maps.plan.units.back().end();
}

bool is_anchor(const LayerPlan& plan, int32_t layer) {
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    if (plan.anchor_of(unit) == layer) return true;
  }
  return false;
}

// What caps leave of a unit's components.
int64_t capped(int64_t components, const CodedUnit& unit, const RankCaps& caps) {
  int64_t cap = 0;
  if (unit.residual) {
    cap = caps.hidden;
  } else if (caps.key > 0 && caps.value > 0) {
    cap = (int64_t{caps.key} + caps.value) * unit.layers;
  }
  return cap > 0 ? std::min(components, cap) : components;
}

int64_t tokens_of(const CodedUnit& unit, const LayerChunk& chunk) {
  return unit.residual ? chunk.residual.rows : chunk.key_value_tokens();
}

void append_rd_header(int64_t tokens, int64_t components, int32_t level, ByteBuffer& out) {
  append_payload_header({PayloadKind::kRd, static_cast<uint16_t>(tokens), static_cast<uint16_t>(components),
                         static_cast<uint16_t>(level)},
                        out);
}

// For the form that is made on the host.
DenseMatrix codes_on_host(const RdEncoderOnDevice& encoder, size_t index, const CodedUnit& unit,
                          const LayerChunk& chunk, int64_t components) {
  thread_local kernels::GrowBuffer memory;
  const kernels::Matrix there =
      memory.matrix(components, tokens_of(unit, chunk), kernels::DType::kF32, kernels::Device::kGpu);
  encoder.codes(index, unit, chunk, there);
  DenseMatrix here(there.rows, there.columns);
  kernels::copy(there, here.view());
  return here;
}

}  // namespace

std::string rd_plan_problem(const LayerPlan& plan, int32_t layers) {
  const bool spans = std::ranges::any_of(plan.units, &CodedUnit::residual);
  return spans && !plan.predicted ? "a native span of codec rd is predicted from exact layers"
                                  : plan_problem(plan, layers);
}

RdEncoder::RdEncoder(const CodecModel& producer, RdEncoderMaps maps, const Sha256Digest& id, kernels::Device device)
    : producer_(producer),
      plan_(maps.plan),
      units_(std::move(maps.units)),
      quantiser_(std::move(maps.quantiser)),
      id_(id) {
  require_units(plan_, units_, quantiser_, planned_layers(maps, producer), "encoder");
  sources_ = checked_sources(plan_, std::move(maps.sources), producer_);
  for (size_t i = 0; i < units_.size(); ++i) {
    const DenseMatrix& map = units_[i].map;
    const int64_t anchor = plan_.anchor_of(i) >= 0 ? producer_.hidden : 0;
    require_map(map.rows <= UINT16_MAX && map.rows == std::ssize(quantiser_.settings().deviations[i]) &&
                    map.rows == std::ssize(units_[i].offset) &&
                    map.columns == rd_source_width(producer_, plan_.units[i], sources_[i]) + anchor,
                "encoder", plan_.units[i]);
  }
  if (device == kernels::Device::kGpu) {
    on_device_ = std::make_unique<const RdEncoderOnDevice>(producer_, units_, quantiser_);
  }
}

kernels::Device RdEncoder::device() const {
  return on_device_ != nullptr ? kernels::Device::kGpu : kernels::Device::kCpu;
}

Result<LayerPlan> RdEncoder::plan(int32_t exact_layers) const { return calibrated_plan(plan_, exact_layers, "rd"); }

UnitSource RdEncoder::source(const LayerPlan& plan, size_t unit) const {
  SCD_CHECK(plan == plan_, "the encoder's own plan");
  return sources_[unit];
}

bool RdEncoder::needs_residual(int32_t layer) const {
  for (size_t unit = 0; unit < units_.size(); ++unit) {
    if (sources_[unit].anchor == layer) return true;
    if (plan_.units[unit].residual && sources_[unit].first_layer == layer) return true;
  }
  return false;
}

int64_t RdEncoder::components(size_t index, const RankCaps& caps) const {
  SCD_CHECK(index < units_.size(), "a unit begins at the layer");
  SCD_CHECK(caps.level >= 0 && caps.level < levels(), "a level of the artifact");
  return capped(quantiser_.components(static_cast<int32_t>(index), caps.level), plan_.units[index], caps);
}

void RdEncoder::append_payload(size_t index, const RankCaps& caps, kernels::ConstMatrix codes, ByteBuffer& out) const {
  append_rd_header(codes.columns, codes.rows, caps.level, out);
  quantiser_.encode(static_cast<int32_t>(index), caps.level, codes, out,
                    caps.packed ? RdForm::kPacked : RdForm::kEntropy);
}

void RdEncoder::encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const {
  const size_t index = plan_.unit_at(chunk.layer);
  const int64_t count = components(index, caps);
  const int64_t tokens = tokens_of(plan_.units[index], chunk);
  if (on_device_ == nullptr || caps.packed) {
    const DenseMatrix computed = on_device_ == nullptr
                                     ? codes(chunk, count)
                                     : codes_on_host(*on_device_, index, plan_.units[index], chunk, count);
    return append_payload(index, caps, computed.view(), out);
  }
  const ByteBuffer payload = std::move(begin(chunk, std::span(&tokens, 1), caps)->finish().front());
  out.insert(out.end(), payload.begin(), payload.end());
}

// Streams under way on the device.
class RdEncoder::OnDevicePayloads final : public PendingPayloads {
 public:
  OnDevicePayloads(const RdEncoder& encoder, size_t index, const RankCaps& caps, std::vector<int64_t> chunk_tokens,
                   std::shared_ptr<RdEncoderOnDevice::Streams> streams)
      : encoder_(encoder),
        index_(index),
        caps_(caps),
        chunk_tokens_(std::move(chunk_tokens)),
        streams_(std::move(streams)) {}

  bool finished() const override { return streams_->encoder.finished(); }

  std::vector<ByteBuffer> finish() override {
    std::vector<ByteBuffer> payloads(chunk_tokens_.size());
    const int64_t components = streams_->products.rows;
    const std::vector<kernels::CodedStream> streams = streams_->encoder.finish();
    const auto by_chunk = rd_streams_by_chunk(streams, components, chunk_tokens_);
    int64_t first = 0;
    for (size_t i = 0; i < payloads.size(); ++i) {
      const int64_t tokens = chunk_tokens_[i];
      if (std::ranges::any_of(by_chunk[i], [](const kernels::CodedStream& stream) { return stream.rans.empty(); })) {
        encode_on_host(first, tokens, payloads[i]);
      } else {
        append_rd_header(tokens, components, caps_.level, payloads[i]);
        RdQuantiser::append_entropy_body(by_chunk[i], payloads[i]);
      }
      first += tokens;
    }
    return payloads;
  }

 private:
  // A chunk with a stream in which more escapes than there is room for.
  void encode_on_host(int64_t first, int64_t tokens, ByteBuffer& payload) const {
    DenseMatrix codes(streams_->products.rows, tokens);
    kernels::copy(kernels::columns_of(streams_->products, first, tokens), codes.view());
    for (int64_t row = 0; row < codes.rows; ++row) {
      const float offset = encoder_.units_[index_].offset[static_cast<size_t>(row)];
      for (float& code : std::span(codes.view().row<float>(row), static_cast<size_t>(tokens))) code += offset;
    }
    encoder_.append_payload(index_, caps_, codes.view(), payload);
  }

  const RdEncoder& encoder_;
  const size_t index_;
  const RankCaps caps_;
  const std::vector<int64_t> chunk_tokens_;
  const std::shared_ptr<RdEncoderOnDevice::Streams> streams_;
};

std::unique_ptr<PendingPayloads> RdEncoder::begin(const LayerChunk& rows, std::span<const int64_t> chunk_tokens,
                                                  const RankCaps& caps) const {
  if (on_device_ == nullptr || caps.packed) return Encoder::begin(rows, chunk_tokens, caps);
  for (const int64_t tokens : chunk_tokens) {
    SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens, "tokens of a chunk");
  }
  const size_t index = plan_.unit_at(rows.layer);
  const int64_t count = components(index, caps);
  auto streams = on_device_->begin(index, plan_.units[index], rows, chunk_tokens, count, caps.level);
  return std::make_unique<OnDevicePayloads>(*this, index, caps, std::vector(chunk_tokens.begin(), chunk_tokens.end()),
                                            std::move(streams));
}

DenseMatrix RdEncoder::codes(const LayerChunk& chunk, int64_t components) const {
  const size_t index = plan_.unit_at(chunk.layer);
  SCD_CHECK(index < units_.size(), "a unit begins at the layer");
  const CodedUnit& unit = plan_.units[index];
  const RdUnitEncoder& maps = units_[index];
  const int64_t tokens = tokens_of(unit, chunk);
  SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens, "tokens of a chunk");
  DenseMatrix source =
      unit.residual
          ? rd_residual(chunk.residual, chunk.anchor)
          : side_by_side(unrotated_copy(chunk.keys, producer_.head_dim, chunk.first_position, producer_.rope).view(),
                         chunk.values);
  if (plan_.anchor_of(index) >= 0) source = side_by_side(source.view(), normalised_rows(chunk.anchor).view());
  DenseMatrix codes(components, tokens);
  for (int64_t row = 0; row < components; ++row) {
    std::fill_n(codes.view().row<float>(row), tokens, maps.offset[static_cast<size_t>(row)]);
  }
  if (components > 0) {
    kernels::gemm_f32(
        {.a = maps.map.top(components), .b = source.view(), .c = codes.view(), .transpose_b = true, .beta = 1.0f});
  }
  return codes;
}

RdDecoder::RdDecoder(const CodecModel& consumer, RdDecoderMaps maps, const Sha256Digest& encoder_id,
                     kernels::Device device, kernels::DType precision)
    : consumer_(consumer),
      plan_(std::move(maps.plan)),
      units_(std::move(maps.units)),
      quantiser_(std::move(maps.quantiser)),
      encoder_id_(encoder_id) {
  require_units(plan_, units_, quantiser_, consumer_.layers, "decoder");
  for (size_t i = 0; i < units_.size(); ++i) {
    const int64_t width = rd_state_width(consumer_, plan_.units[i]);
    const RdUnitDecoder& maps_of = units_[i];
    const bool anchored = plan_.anchor_of(i) >= 0;
    require_map(maps_of.map.rows <= UINT16_MAX && maps_of.map.rows == std::ssize(quantiser_.settings().deviations[i]) &&
                    maps_of.map.columns == width && std::ssize(maps_of.mean) == width &&
                    fits_anchor(maps_of, anchored ? consumer_.hidden : 0),
                "decoder", plan_.units[i]);
    require_map(maps_of.network.fits(maps_of.map.rows + (anchored ? consumer_.hidden : 0), width), "network",
                plan_.units[i]);
  }
  const bool networks = std::ranges::any_of(units_, [](const RdUnitDecoder& unit) { return !unit.network.empty(); });
  if (device == kernels::Device::kGpu && !networks) {
    on_device_ = std::make_unique<const RdDecoderOnDevice>(consumer_, units_, quantiser_);
  } else if (precision == kernels::DType::kBF16) {
    for (const RdUnitDecoder& unit : units_) rounded_.emplace_back(unit);
  }
  if (on_device_ == nullptr && rounded_.empty()) return;
  for (RdUnitDecoder& unit : units_) unit.map = unit.anchor_map = unit.anchor_basis = {};  // kept in another form
}

kernels::Device RdDecoder::device() const {
  return on_device_ != nullptr ? kernels::Device::kGpu : kernels::Device::kCpu;
}

Result<LayerPlan> RdDecoder::plan(int32_t exact_layers) const { return calibrated_plan(plan_, exact_layers, "rd"); }
bool RdDecoder::needs_anchor(int32_t layer) const { return is_anchor(plan_, layer); }

size_t RdDecoder::max_payload_bytes(int64_t tokens) const {
  int64_t most = 0;
  for (size_t unit = 0; unit < units_.size(); ++unit) {
    most = std::max(most, quantiser_.components(static_cast<int32_t>(unit), 0));
  }
  return kPayloadHeaderBytes + RdQuantiser::max_bytes(tokens * most);
}

Result<RdBody> RdDecoder::read(const PayloadPlace& place, std::span<const std::byte> payload) const {
  const auto read = read_payload_header(place, payload);
  if (!read) return read.failure();
  const PayloadHeader& header = read.value();
  if (header.kind != PayloadKind::kRd) return payload_failure(place, "not a payload of codec rd");
  const size_t index = plan_.unit_at(place.layer);
  if (index == units_.size()) return payload_failure(place, "no unit begins there: " + to_string(plan_));
  const int32_t level = header.second_rank;
  if (level >= quantiser_.levels() || header.first_rank > quantiser_.components(static_cast<int32_t>(index), level)) {
    return payload_failure(place, std::to_string(header.first_rank) + " components at level " + std::to_string(level) +
                                      " are not what was calibrated");
  }
  return RdBody{index, level, header.first_rank, payload.subspan(kPayloadHeaderBytes)};
}

Result<Done> RdDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const {
  if (reads_ahead()) {
    const Payload one{place, payload};
    auto blocks = read_ahead({&one, 1});
    if (!blocks) return blocks.failure();
    decode_block(place, blocks.value().front(), out);
    return Done{};
  }
  const auto found = read(place, payload);
  if (!found) return found.failure();
  DenseMatrix codes(found.value().components, place.tokens);
  const std::string problem = quantiser_.decode(static_cast<int32_t>(found.value().unit), found.value().level,
                                                found.value().body, codes.view());
  if (!problem.empty()) return payload_failure(place, problem);
  decode_codes(place, codes.view(), out);
  return Done{};
}

Result<std::unique_ptr<PendingBlocks>> RdDecoder::begin_reading(std::span<const Payload> payloads) const {
  SCD_CHECK(on_device_ != nullptr, "a decoder on a GPU");
  std::vector<RdBody> bodies;
  for (const Payload& payload : payloads) {
    auto found = read(payload.place, payload.bytes);
    if (!found) return found.failure();
    bodies.push_back(found.value());
  }
  return begin_rd_blocks(*on_device_, quantiser_, payloads, bodies);
}

void RdDecoder::require_anchor(const PayloadPlace& place, size_t unit) const {
  SCD_CHECK(
      plan_.anchor_of(unit) < 0 || (place.anchor.rows == place.tokens && place.anchor.columns == consumer_.hidden),
      "the anchor's rows came with the payload");
}

void RdDecoder::decode_block(const PayloadPlace& place, const CodeBlock& block, DecodedLayer& out) const {
  const size_t index = plan_.unit_at(place.layer);
  SCD_CHECK(index < units_.size(), "a unit begins at the layer");
  require_anchor(place, index);
  on_device_->decode(index, plan_.units[index], place, *static_cast<const RdDecoderOnDevice::Block*>(block.codes.get()),
                     out);
}

void RdDecoder::decode_codes(const PayloadPlace& place, kernels::ConstMatrix codes, DecodedLayer& out) const {
  const size_t index = plan_.unit_at(place.layer);
  SCD_CHECK(index < units_.size() && on_device_ == nullptr, "a unit begins at the layer, and it is decoded here");
  require_anchor(place, index);
  const CodedUnit& unit = plan_.units[index];
  if (!rounded_.empty()) return split(unit, reconstruct_rounded(index, place, codes), place, out);
  const DenseMatrix anchor = plan_.anchor_of(index) >= 0 ? normalised_rows(place.anchor) : DenseMatrix(place.tokens, 0);
  const DenseMatrix state = reconstruct(units_[index], codes, anchor.view());
  split(unit, state.view(), place, out);
}

kernels::ConstMatrix RdDecoder::reconstruct_rounded(size_t index, const PayloadPlace& place,
                                                    kernels::ConstMatrix codes) const {
  thread_local kernels::GrowBuffer anchor_memory;
  const bool anchored = plan_.anchor_of(index) >= 0;
  const kernels::Matrix anchor = anchor_memory.matrix(place.tokens, anchored ? consumer_.hidden : 0);
  if (anchored) kernels::divide_by_rms(place.anchor, place.anchor, anchor);
  const kernels::Matrix state = rounded_[index].reconstruct(codes, anchor);
  add_network(units_[index].network, {codes, anchor}, state);
  return state;
}

void RdDecoder::split(const CodedUnit& unit, kernels::ConstMatrix state, const PayloadPlace& place,
                      DecodedLayer& out) const {
  out.tokens = place.tokens;
  out.on_device.present = false;
  out.hidden.clear();
  if (unit.residual) {
    out.kind = DecodedKind::kResidual;
    out.keys.clear();
    out.values.clear();
    out.hidden.resize(static_cast<size_t>(state.rows * state.columns));
    kernels::multiply_by_rms(state, place.anchor, kernels::matrix(out.hidden.data(), state.rows, state.columns));
    return;
  }
  out.kind = DecodedKind::kKeysValues;
  const int64_t width = consumer_.kv_width() * unit.layers;
  out.keys.resize(static_cast<size_t>(place.tokens * width));
  out.values.resize(out.keys.size());
  for (int64_t row = 0; row < place.tokens; ++row) {
    std::copy_n(state.row<float>(row), width, out.keys.data() + row * width);
    std::copy_n(state.row<float>(row) + width, width, out.values.data() + row * width);
  }
  rotate_chunk(kernels::matrix(out.keys.data(), place.tokens, width), consumer_.head_dim, place.first_position,
               consumer_.rope, kernels::RopeDirection::kRotate);
}

}  // namespace scd
