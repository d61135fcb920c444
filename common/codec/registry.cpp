#include "common/codec/registry.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/base/check.h"
#include "common/codec/droidspeak_codec.h"
#include "common/codec/integer_body.h"
#include "common/codec/lora_delta_codec.h"
#include "common/codec/lossless_body.h"
#include "common/codec/model_difference.h"
#include "common/codec/plain_codec.h"
#include "common/codec/raw_body.h"
#include "common/codec/raw_on_device.h"
#include "common/codec/rd/rd_codec.h"
#include "common/codec/scd_codec.h"

namespace scd {
namespace {

struct CodecName {
  CodecId id;
  std::string_view name;
};
constexpr std::array kCodecs{CodecName{CodecId::kRaw, "raw"},
                             CodecName{CodecId::kLossless, "lossless"},
                             CodecName{CodecId::kInt8, "int8"},
                             CodecName{CodecId::kInt4, "int4"},
                             CodecName{CodecId::kScd, "scd"},
                             CodecName{CodecId::kRd, "rd"},
                             CodecName{CodecId::kKvtc, "kvtc"},
                             CodecName{CodecId::kDroidSpeak, "droidspeak"},
                             CodecName{CodecId::kLoraDelta, "lora_delta"}};

template <class Part>
const Part& required(const Part* artifact, CodecId id) {
  if (artifact == nullptr) {
    throw Error(ErrorCode::kFailedPrecondition, "codec " + std::string(to_string(id)) +
                                                    " needs a codec artifact: set codec.artifact to the directory "
                                                    "`scd calibrate` wrote");
  }
  if (artifact->codec != id) {
    throw Error(ErrorCode::kFailedPrecondition, "codec " + std::string(to_string(id)) +
                                                    ": the artifact is one of codec " +
                                                    std::string(to_string(artifact->codec)));
  }
  return *artifact;
}

// Of a codec that needs no calibration; null for the others.
std::unique_ptr<const PlainBody> make_plain_body(CodecId id, const CodecModel& producer) {
  switch (id) {
    case CodecId::kRaw: return std::make_unique<RawBody>(producer.kv_width());
    case CodecId::kLossless: return std::make_unique<LosslessBody>(producer.kv_width());
    case CodecId::kInt8: return std::make_unique<IntegerBody>(8, producer.kv_heads, producer.head_dim);
    case CodecId::kInt4: return std::make_unique<IntegerBody>(4, producer.kv_heads, producer.head_dim);
    case CodecId::kScd:
    case CodecId::kRd:
    case CodecId::kKvtc:
    case CodecId::kDroidSpeak:
    case CodecId::kLoraDelta: return nullptr;
  }
  throw Error(ErrorCode::kInvalidArgument, "unknown codec id " + std::to_string(static_cast<int>(id)));
}

}  // namespace

std::vector<CodecId> all_codecs() {
  std::vector<CodecId> ids;
  for (const CodecName& codec : kCodecs) ids.push_back(codec.id);
  return ids;
}

std::string_view to_string(CodecId id) {
  const auto found = std::ranges::find(kCodecs, id, &CodecName::id);
  return found == kCodecs.end() ? "unknown" : found->name;
}

std::optional<CodecId> codec_from_name(std::string_view name) {
  const auto found = std::ranges::find(kCodecs, name, &CodecName::name);
  return found == kCodecs.end() ? std::nullopt : std::optional(found->id);
}

std::optional<CodecId> codec_from_number(int number) {
  const auto found =
      std::ranges::find(kCodecs, number, [](const CodecName& codec) { return static_cast<int>(codec.id); });
  return found == kCodecs.end() ? std::nullopt : std::optional(found->id);
}

bool needs_artifact(CodecId id) {
  switch (id) {
    case CodecId::kScd:
    case CodecId::kRd:
    case CodecId::kKvtc:
    case CodecId::kDroidSpeak:
    case CodecId::kLoraDelta: return true;
    case CodecId::kRaw:
    case CodecId::kLossless:
    case CodecId::kInt8:
    case CodecId::kInt4: return false;
  }
  return false;
}

bool has_levels(CodecId id) { return id == CodecId::kRd || id == CodecId::kKvtc; }

std::unique_ptr<Encoder> make_encoder(CodecId id, const CodecModel& producer, const ArtifactEncoder* artifact,
                                      kernels::Device device) {
  if (id == CodecId::kRaw && device == kernels::Device::kGpu) return std::make_unique<RawEncoderOnDevice>(producer);
  if (auto body = make_plain_body(id, producer)) return std::make_unique<PlainEncoder>(std::move(body), producer);
  const ArtifactEncoder& part = required(artifact, id);
  switch (id) {
    case CodecId::kScd: return std::make_unique<ScdEncoder>(producer, part.layers, part.id);
    case CodecId::kDroidSpeak: return std::make_unique<DroidSpeakEncoder>(producer, part.plan, part.id);
    case CodecId::kLoraDelta: return std::make_unique<LoraDeltaEncoder>(producer, part.lora, part.id);
    default: return std::make_unique<RdEncoder>(producer, part.rd, part.id, device);
  }
}

std::unique_ptr<Decoder> make_decoder(CodecId id, const CodecModel& producer, const CodecModel& consumer,
                                      const ArtifactDecoder* artifact, const MapPlacement& placement) {
  if (id == CodecId::kRaw && placement.device == kernels::Device::kGpu && producer.rope == consumer.rope) {
    return std::make_unique<RawDecoderOnDevice>(producer, consumer);
  }
  if (auto body = make_plain_body(id, producer)) {
    return std::make_unique<PlainDecoder>(std::move(body), producer, consumer);
  }
  const ArtifactDecoder& part = required(artifact, id);
  // Those that regress the consumer's state on the producer's need no common shape.
  if (!has_levels(id)) require_same_kv_shape(producer, consumer, "codec " + std::string(to_string(id)));
  switch (id) {
    case CodecId::kScd: return std::make_unique<ScdDecoder>(consumer, part.layers, part.encoder_id);
    case CodecId::kDroidSpeak:
      return std::make_unique<DroidSpeakDecoder>(producer, consumer, part.plan, part.encoder_id);
    case CodecId::kLoraDelta: return std::make_unique<LoraDeltaDecoder>(producer, consumer, part.lora, part.encoder_id);
    default:
      return std::make_unique<RdDecoder>(consumer, part.rd, part.encoder_id, placement.device, placement.precision);
  }
}

}  // namespace scd
