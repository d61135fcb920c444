#include "decode_server/receive/handshake.h"

#include <algorithm>
#include <new>
#include <string_view>

#include "common/codec/registry.h"
#include "common/model/rope_settings.h"

namespace scd {
namespace {

constexpr size_t kLongestRope = 4096;  // bytes; it is parsed, and longer than any real one

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

// Also where it does not say.
bool makes_codes_of(const ArtifactDecoder& artifact, const v1::GetProducerInfoResponse& producer) {
  const std::string_view wanted(reinterpret_cast<const char*>(artifact.encoder_id.data()), artifact.encoder_id.size());
  return std::ranges::all_of(producer.codecs(), [&](const v1::OfferedCodec& offered) {
    return offered.codec() != static_cast<v1::Codec>(artifact.codec) || offered.encoder_id() == wanted;
  });
}

// Raw codes are BF16: they carry a BF16 cache bit by bit, and no other.
Result<Done> check_exact(const ConsumerIdentity& consumer, const v1::GetProducerInfoResponse& producer) {
  if (auto same = check_same_model(consumer, producer); !same) return same;
  if (consumer.adapter_unmerged) {
    return Failure{ErrorCode::kFailedPrecondition,
                   "an exact transfer needs equal arithmetic; adapter: producer in the weights, consumer beside them"};
  }
  if (producer.precision() != "bf16" || consumer.precision != "bf16") {
    return Failure{
        ErrorCode::kFailedPrecondition,
        "an exact transfer needs BF16 caches; " + difference("precision", producer.precision(), consumer.precision)};
  }
  return Done{};
}

Result<Done> check_models(const ConsumerIdentity& consumer, CodecId codec, const ModelIdentity& producer) {
  const ModelIdentity own = identity_of(consumer.fingerprint);
  if (producer.rope.size() > kLongestRope) {
    return Failure{ErrorCode::kDataLoss, "its RoPE settings have " + std::to_string(producer.rope.size()) +
                                             " bytes; expected at most " + std::to_string(kLongestRope)};
  }
  if (producer.tokenizer != own.tokenizer) {
    return Failure{ErrorCode::kFailedPrecondition, difference("tokenizers differ", producer.tokenizer, own.tokenizer)};
  }
  if (!needs_artifact(codec)) return Done{};
  if (!consumer.artifact) {
    return Failure{ErrorCode::kFailedPrecondition,
                   "codec " + std::string(to_string(codec)) + " needs codec.artifact, which is not configured"};
  }
  return check_compatible(*consumer.artifact, producer, own);
}

}  // namespace

Result<Done> check_same_model(const ConsumerIdentity& consumer, const v1::GetProducerInfoResponse& producer) {
  const ModelIdentity own = identity_of(consumer.fingerprint), theirs = identity_of(producer.fingerprint());
  if (theirs.weights == own.weights && theirs.rope == own.rope) return Done{};
  return Failure{ErrorCode::kFailedPrecondition, "an exact transfer needs one model on both sides; " +
                                                     difference("weights", theirs.weights, own.weights) + "; " +
                                                     difference("RoPE", theirs.rope, own.rope)};
}

Result<Done> check_suited(const ConsumerIdentity& consumer, const CompletionRequest& request, int64_t handover_tokens,
                          const v1::GetProducerInfoResponse& producer) {
  const uint32_t context = producer.context_length();  // 0: not known
  if (context > 0 && handover_tokens > int64_t{context}) {
    return Failure{ErrorCode::kUnavailable,
                   std::to_string(handover_tokens) + " tokens exceed its context of " + std::to_string(context)};
  }
  const bool coded = request.mode != TransferMode::kExact && needs_artifact(request.codec.id);
  if (coded && consumer.artifact && request.codec.id == consumer.artifact->codec &&
      !makes_codes_of(*consumer.artifact, producer)) {
    return Failure{ErrorCode::kFailedPrecondition, "its encoder is not the one this server's decoder was made for"};
  }
  return Done{};
}

bool artifact_fits(const ConsumerIdentity& consumer, const v1::GetProducerInfoResponse& producer) {
  return consumer.artifact && makes_codes_of(*consumer.artifact, producer) &&
         check_compatible(*consumer.artifact, identity_of(producer.fingerprint()), identity_of(consumer.fingerprint))
             .ok();
}

std::optional<PageOrigin> origin_of(const ConsumerIdentity& consumer, const CodecChoice& codec,
                                    const v1::GetProducerInfoResponse& producer) {
  const bool keeps_bits = codec.id == CodecId::kRaw || codec.id == CodecId::kLossless;
  if (keeps_bits && check_exact(consumer, producer)) return PageOrigin{};
  if (!needs_artifact(codec.id) || !consumer.artifact) return std::nullopt;
  PageOrigin origin{.codec = codec, .encoder_id = consumer.artifact->encoder_id};
  origin.codec->rank.packed = false;  // the form changes no number
  return origin;
}

namespace {

MapPlacement placement_of(const ConsumerIdentity& consumer) {
  return {consumer.device, consumer.precision == "bf16" ? kernels::DType::kBF16 : kernels::DType::kF32};
}

}  // namespace

Result<std::shared_ptr<const Decoder>> make_transfer_decoder(const ConsumerIdentity& consumer, CodecId codec,
                                                             bool exact, const v1::GetProducerInfoResponse& producer) {
  const auto suited = check_models(consumer, codec, identity_of(producer.fingerprint()));
  if (!suited) return suited.failure();
  const auto faithful = exact ? check_exact(consumer, producer) : Result<Done>(Done{});
  if (!faithful) return faithful.failure();
  try {
    const ArtifactDecoder* artifact = consumer.artifact ? &*consumer.artifact : nullptr;
    return std::shared_ptr<const Decoder>(make_decoder(codec, codec_model_of(producer), consumer.model,
                                                       needs_artifact(codec) ? artifact : nullptr,
                                                       placement_of(consumer)));
  } catch (const Error& error) {
    return error.failure();
  } catch (const std::bad_alloc& error) {
    return Failure{ErrorCode::kResourceExhausted,
                   std::string("memory of this decode server for the codec's maps: ") + error.what()};
  } catch (const std::exception& error) {
    return Failure{ErrorCode::kDataLoss, std::string("what it says of its model cannot be read: ") + error.what()};
  }
}

}  // namespace scd
