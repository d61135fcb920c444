#include "common/codec/registry.h"

#include "common/base/check.h"
#include "common/codec/model_difference.h"
#include "common/codec/raw.h"
#include "common/codec/scd_codec.h"

namespace scd {
namespace {

template <class Part>
const Part& required(const Part* artifact, CodecId id) {
  if (artifact == nullptr) {
    throw Error(ErrorCode::kFailedPrecondition, "codec " + std::string(to_string(id)) +
                                                    " needs a codec artifact: set codec.artifact to the directory "
                                                    "`scd calibrate` wrote");
  }
  return *artifact;
}

}  // namespace

std::string_view to_string(CodecId id) {
  switch (id) {
    case CodecId::kRaw: return "raw";
    case CodecId::kScd: return "scd";
  }
  return "unknown";
}

std::optional<CodecId> codec_from_name(std::string_view name) {
  for (const CodecId id : {CodecId::kRaw, CodecId::kScd}) {
    if (to_string(id) == name) return id;
  }
  return std::nullopt;
}

std::optional<CodecId> codec_from_number(uint8_t id) {
  switch (static_cast<CodecId>(id)) {
    case CodecId::kRaw:
    case CodecId::kScd: return static_cast<CodecId>(id);
  }
  return std::nullopt;
}

bool needs_artifact(CodecId id) { return id != CodecId::kRaw; }

std::unique_ptr<Encoder> make_encoder(CodecId id, const CodecModel& producer, const ArtifactEncoder* artifact) {
  switch (id) {
    case CodecId::kRaw: return std::make_unique<RawEncoder>(producer);
    case CodecId::kScd: {
      const ArtifactEncoder& part = required(artifact, id);
      return std::make_unique<ScdEncoder>(producer, part.layers, part.id);
    }
  }
  throw Error(ErrorCode::kInvalidArgument, "unknown codec id " + std::to_string(static_cast<int>(id)));
}

std::unique_ptr<Decoder> make_decoder(CodecId id, const CodecModel& producer, const CodecModel& consumer,
                                      const ArtifactDecoder* artifact) {
  switch (id) {
    case CodecId::kRaw: return std::make_unique<RawDecoder>(producer, consumer);
    case CodecId::kScd: {
      const ArtifactDecoder& part = required(artifact, id);
      require_same_kv_shape(producer, consumer, "codec scd");
      return std::make_unique<ScdDecoder>(consumer, part.layers, part.encoder_id);
    }
  }
  throw Error(ErrorCode::kInvalidArgument, "unknown codec id " + std::to_string(static_cast<int>(id)));
}

}  // namespace scd
