#include "decode_server/receive/handshake.h"

#include "common/codec/registry.h"
#include "common/model/rope_settings.h"

namespace scd {
namespace {

ModelIdentity identity_of(const v1::ModelFingerprint& fingerprint) {
  return {fingerprint.weights(), fingerprint.tokenizer(), fingerprint.rope()};
}

ModelIdentity identity_of(const ModelFingerprint& fingerprint) {
  return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
}

CodecModel codec_model_of(const v1::GetProducerInfoResponse& producer) {
  return {.layers = static_cast<int32_t>(producer.layers()),
          .kv_heads = static_cast<int32_t>(producer.kv_heads()),
          .head_dim = static_cast<int32_t>(producer.head_dim()),
          .hidden = static_cast<int32_t>(producer.hidden_size()),
          .rope = parse_rope_settings(producer.fingerprint().rope(), static_cast<int32_t>(producer.head_dim())).table};
}

std::string difference(const std::string& what, const std::string& theirs, const std::string& ours) {
  return what + ": producer " + theirs + ", consumer " + ours;
}

Result<Done> check_models(const ConsumerIdentity& consumer, CodecId codec, bool exact, const ModelIdentity& producer) {
  const ModelIdentity own = identity_of(consumer.fingerprint);
  if (producer.tokenizer != own.tokenizer) {
    return Failure{ErrorCode::kFailedPrecondition, difference("tokenizers differ", producer.tokenizer, own.tokenizer)};
  }
  if (exact && (producer.weights != own.weights || producer.rope != own.rope)) {
    return Failure{ErrorCode::kFailedPrecondition, "an exact transfer needs one model on both sides; " +
                                                       difference("weights", producer.weights, own.weights) + "; " +
                                                       difference("RoPE", producer.rope, own.rope)};
  }
  if (!needs_artifact(codec)) return Done{};
  if (!consumer.artifact) {
    return Failure{ErrorCode::kFailedPrecondition,
                   "codec " + std::string(to_string(codec)) + " needs codec.artifact, which is not configured"};
  }
  return check_compatible(*consumer.artifact, producer, own);
}

}  // namespace

CodecModel codec_model_of(const ModelConfig& config) {
  return {.layers = config.layers,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .hidden = config.hidden,
          .rope = config.rope};
}

Result<std::shared_ptr<const Decoder>> make_transfer_decoder(const ConsumerIdentity& consumer, CodecId codec,
                                                             bool exact, const v1::GetProducerInfoResponse& producer) {
  const auto suited = check_models(consumer, codec, exact, identity_of(producer.fingerprint()));
  if (!suited) return suited.failure();
  try {
    const ArtifactDecoder* artifact = consumer.artifact ? &*consumer.artifact : nullptr;
    return std::shared_ptr<const Decoder>(
        make_decoder(codec, codec_model_of(producer), consumer.model, needs_artifact(codec) ? artifact : nullptr));
  } catch (const Error& error) {
    return error.failure();
  }
}

}  // namespace scd
