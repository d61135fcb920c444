#include "prefill_server/request/start.h"

#include <algorithm>
#include <optional>
#include <string>

#include "common/codec/registry.h"

namespace scd {
namespace {

constexpr size_t kMaxSaltBytes = 256;
constexpr size_t kMaxAddressBytes = 512;
constexpr uint32_t kMaxRank = 1 << 16;

Failure invalid(const std::string& what) { return {ErrorCode::kInvalidArgument, "start: " + what}; }

Result<Done> check_tokens(const v1::StartPrefill& start, const Producer& producer) {
  const int64_t handover = start.handover_tokens();
  if (start.token_ids().empty()) return invalid("token_ids is empty");
  if (handover == 0 || handover % kHandoverMultiple != 0) {
    return invalid("handover_tokens is " + std::to_string(handover) + "; it must be a multiple of 16 and not 0");
  }
  if (handover > start.token_ids_size()) {
    return invalid("handover_tokens is " + std::to_string(handover) + " but only " +
                   std::to_string(start.token_ids_size()) + " token_ids were sent");
  }
  if (handover > producer.context_tokens) {
    return invalid(std::to_string(handover) + " tokens exceed the producer's context of " +
                   std::to_string(producer.context_tokens));
  }
  for (int64_t i = 0; i < handover; ++i) {
    const int32_t id = start.token_ids(static_cast<int>(i));
    if (id < 0 || id >= producer.vocabulary) {
      return invalid("token " + std::to_string(id) + " at position " + std::to_string(i) +
                     " is not in the vocabulary of " + std::to_string(producer.vocabulary));
    }
  }
  return Done{};
}

Result<Done> check_extent(const v1::StartPrefill& start) {
  if (start.skip_tokens() >= start.handover_tokens()) {
    return invalid("skip_tokens is " + std::to_string(start.skip_tokens()) + "; it must be less than handover_tokens");
  }
  if (start.held_tokens() > start.handover_tokens()) {
    return invalid("held_tokens is " + std::to_string(start.held_tokens()) + ", more than handover_tokens");
  }
  return Done{};
}

// Where plans are calibrated, for a consumer of another depth as well, they say which first layers there are.
Result<Done> check_layers(const v1::StartPrefill& start, const Producer& producer, const Encoder& encoder) {
  const auto layers = start.first_layer() <= UINT16_MAX ? encoder.plan(static_cast<int32_t>(start.first_layer()))
                                                        : Result<LayerPlan>(LayerPlan{});
  if (!layers) return layers.failure();
  if (!layers.value().units.empty()) return Done{};
  return invalid("first_layer is " + std::to_string(start.first_layer()) + " of " + std::to_string(producer.layers) +
                 " layers");
}

Result<Done> check_data_plane(const v1::StartPrefill& start) {
  if (start.transfer_token().size() != TransferToken{}.size()) {
    return invalid("transfer_token has " + std::to_string(start.transfer_token().size()) + " bytes; it must have 16");
  }
  if (start.data_plane_address().empty()) return invalid("data_plane_address is empty");
  if (start.data_plane_address().size() > kMaxAddressBytes) {
    return invalid("data_plane_address is longer than " + std::to_string(kMaxAddressBytes) + " bytes");
  }
  if (start.slot_bytes() == 0) return invalid("slot_bytes is 0");
  if (start.credit_messages() == 0) return invalid("credit_messages is 0");
  if (start.cache_salt().size() > kMaxSaltBytes) return invalid("cache_salt is longer than 256 bytes");
  return Done{};
}

Result<CodecChoice> read_codec(const v1::CodecChoice& choice, const Producer& producer) {
  const std::optional<CodecId> id = codec_from_number(choice.codec());
  if (!id || producer.encoder(*id) == nullptr) {
    std::string offered;
    bool fitted = false;
    for (const auto& [known, encoder] : producer.encoders) {
      offered += " " + std::string(to_string(known));
      fitted = fitted || needs_artifact(known);
    }
    return Failure{ErrorCode::kUnimplemented,
                   "codec " + (id ? std::string(to_string(*id)) : v1::Codec_Name(choice.codec())) +
                       " is not offered here; offered:" + offered + (fitted ? "" : " (codec.artifact is not set)")};
  }
  const v1::RankCaps& rank = choice.rank();
  if (std::max({rank.key(), rank.value(), rank.hidden()}) > kMaxRank) return invalid("a rank is larger than 65536");
  const int32_t levels = producer.encoder(*id)->levels();
  if (choice.level() >= static_cast<uint32_t>(levels)) {
    return invalid("level " + std::to_string(choice.level()) + " does not exist; this codec has " +
                   std::to_string(levels));
  }
  const bool packed = choice.form() == v1::CODE_FORM_PACKED;
  if (!v1::CodeForm_IsValid(choice.form()) || (packed && !has_levels(*id))) {
    return invalid("codec " + std::string(to_string(*id)) + " has no form " + std::to_string(choice.form()));
  }
  return CodecChoice{*id,
                     {static_cast<int32_t>(rank.key()), static_cast<int32_t>(rank.value()),
                      static_cast<int32_t>(rank.hidden()), static_cast<int32_t>(choice.level()), packed}};
}

void compare(std::string& differences, const std::string& what, const std::string& expected, const std::string& ours) {
  if (expected.empty() || expected == ours) return;
  differences += (differences.empty() ? "" : "; ") + what + ": this prefill server has " +
                 (ours.empty() ? "none" : ours) + ", the decode server expects " + expected;
}

Result<Done> check_fingerprints(const v1::StartPrefill& start, const Producer& producer, const Encoder& encoder) {
  const std::string& expected_id = start.expected_encoder_id();
  if (!expected_id.empty() && expected_id.size() != Sha256Digest{}.size()) {
    return invalid("expected_encoder_id has " + std::to_string(expected_id.size()) + " bytes; it must have 32 or none");
  }
  std::string differences;
  const v1::ModelFingerprint& expected = start.expected_model();
  compare(differences, "model weights", expected.weights(), producer.fingerprint.weights);
  compare(differences, "tokenizer", expected.tokenizer(), producer.fingerprint.tokenizer);
  compare(differences, "RoPE settings", expected.rope(), producer.fingerprint.rope);
  const auto* bytes = reinterpret_cast<const uint8_t*>(expected_id.data());
  compare(differences, "codec encoder", to_hex({bytes, expected_id.size()}), to_hex(encoder.id()));
  if (differences.empty()) return Done{};
  return Failure{ErrorCode::kFailedPrecondition, "the two servers do not belong together: " + differences};
}

}  // namespace

Result<PrefillRequest> read_start(const v1::StartPrefill& start, const Producer& producer,
                                  PrefillClock::time_point received_at) {
  for (const auto& checked : {check_tokens(start, producer), check_extent(start), check_data_plane(start)}) {
    if (!checked) return checked.failure();
  }
  const Result<CodecChoice> codec = read_codec(start.codec(), producer);
  if (!codec) return codec.failure();
  const auto same = check_fingerprints(start, producer, *producer.encoder(codec.value().id));
  if (!same) return same.failure();
  const auto layers = check_layers(start, producer, *producer.encoder(codec.value().id));
  if (!layers) return layers.failure();

  PrefillRequest request{.id = start.request_id(),
                         .generation = start.generation(),
                         .tokens = {start.token_ids().begin(), start.token_ids().begin() + start.handover_tokens()},
                         .held_tokens = start.held_tokens(),
                         .handover_tokens = start.handover_tokens(),
                         .skip_tokens = start.skip_tokens(),
                         .first_layer = static_cast<int32_t>(start.first_layer()),
                         .codec = codec.value(),
                         .transfer_token = {},
                         .peer = start.data_plane_address(),
                         .slot_bytes = start.slot_bytes(),
                         .credit_messages = start.credit_messages(),
                         .cache_salt = start.cache_salt(),
                         .received_at = received_at};
  std::copy(start.transfer_token().begin(), start.transfer_token().end(), request.transfer_token.begin());
  if (start.deadline_ms() > 0) request.deadline = received_at + std::chrono::milliseconds(start.deadline_ms());
  return request;
}

}  // namespace scd
