#include "decode_server/request/to_proto.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "common/codec/registry.h"

namespace scd {
namespace {

v1::TokenLogprob to_proto(const TokenLogprob& token) {
  v1::TokenLogprob proto;
  proto.set_token_id(token.id);
  proto.set_logprob(token.logprob);
  proto.set_text(token.text);
  return proto;
}

v1::Part to_proto(TransferPart part) {
  switch (part) {
    case TransferPart::kQueue: return v1::PART_QUEUE;
    case TransferPart::kPrefill: return v1::PART_PREFILL;
    case TransferPart::kEncode: return v1::PART_ENCODE;
    case TransferPart::kWire: return v1::PART_WIRE;
    case TransferPart::kRebuild: return v1::PART_REBUILD;
    case TransferPart::kSuffix: return v1::PART_SUFFIX;
    case TransferPart::kFirstStep: return v1::PART_FIRST_STEP;
  }
  return v1::PART_UNSPECIFIED;
}

int64_t microseconds(ServingClock::duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

v1::TransferAccount to_proto(const TransferAccount& account) {
  v1::TransferAccount proto;
  const v1::CodecChoice codec = to_proto(account.codec);
  proto.set_codec(codec.codec());
  proto.set_level(codec.level());
  proto.set_form(codec.form());
  if (codec.has_rank()) *proto.mutable_rank() = codec.rank();
  proto.set_wire_bytes(static_cast<uint64_t>(account.wire_bytes));
  proto.set_wire_messages(static_cast<uint32_t>(account.wire_messages));
  proto.set_ratio_to_bf16(account.ratio_to_bf16);
  proto.set_cached_tokens(static_cast<uint32_t>(account.cached_tokens));
  proto.set_prefix_cached_tokens(static_cast<uint32_t>(account.prefix_cached_tokens));
  proto.set_preemptions(static_cast<uint32_t>(account.preemptions));
  proto.set_handover_tokens(static_cast<uint32_t>(account.handover_tokens));
  proto.set_queue_ms(account.times.of(TransferPart::kQueue));
  proto.set_prefill_ms(account.times.of(TransferPart::kPrefill));
  proto.set_encode_ms(account.times.of(TransferPart::kEncode));
  proto.set_wire_ms(account.times.of(TransferPart::kWire));
  proto.set_rebuild_ms(account.times.of(TransferPart::kRebuild));
  proto.set_suffix_ms(account.times.of(TransferPart::kSuffix));
  proto.set_first_step_ms(account.times.of(TransferPart::kFirstStep));
  proto.set_orchestration_ms(account.times.orchestration_ms);
  proto.set_ttft_ms(account.times.total_ms);
  proto.set_fallback_reason(account.fallback_reason);
  proto.set_codec_reason(account.codec_reason);
  proto.set_prefill_endpoint(account.prefill_endpoint);
  if (account.predicted_seconds) proto.set_predicted_transfer_ms(1e3 * *account.predicted_seconds);
  proto.set_measured_transfer_ms(1e3 * account.measured_seconds);
  if (account.forecast) {
    proto.set_predicted_first_token_ms(1e3 * account.forecast->seconds());
    proto.set_predicted_other_way_ms(1e3 * account.forecast->other_seconds());
    proto.set_measured_first_token_ms(1e3 * account.first_token_seconds);
  }
  for (const TransferSpan& span : account.timeline) {
    v1::Span& added = *proto.add_timeline();
    added.set_part(to_proto(span.part));
    added.set_start_us(microseconds(span.begin - account.arrival));
    added.set_end_us(microseconds(span.end - account.arrival));
  }
  return proto;
}

}  // namespace

std::string request_id_text(uint64_t id) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(id));
  return text;
}

v1::CodecChoice to_proto(const std::optional<CodecChoice>& codec) {
  v1::CodecChoice proto;
  if (!codec) {
    proto.set_codec(v1::CODEC_ORACLE);
    return proto;
  }
  proto.set_codec(static_cast<v1::Codec>(codec->id));
  proto.set_level(static_cast<uint32_t>(codec->rank.level));
  if (has_levels(codec->id)) proto.set_form(codec->rank.packed ? v1::CODE_FORM_PACKED : v1::CODE_FORM_ENTROPY);
  if (codec->rank == RankCaps{.level = codec->rank.level, .packed = codec->rank.packed}) return proto;
  proto.mutable_rank()->set_key(static_cast<uint32_t>(codec->rank.key));
  proto.mutable_rank()->set_value(static_cast<uint32_t>(codec->rank.value));
  proto.mutable_rank()->set_hidden(static_cast<uint32_t>(codec->rank.hidden));
  return proto;
}

v1::PromptInfo to_proto(const PromptInfo& info, uint64_t request_id, const std::string& model) {
  v1::PromptInfo proto;
  proto.set_request_id(request_id_text(request_id));
  proto.set_prompt_tokens(static_cast<uint32_t>(info.prompt_tokens));
  proto.set_cached_tokens(static_cast<uint32_t>(info.cached_tokens));
  proto.set_prefix_cached_tokens(static_cast<uint32_t>(info.prefix_cached_tokens));
  *proto.mutable_codec() = to_proto(info.codec);
  proto.set_model(model);
  return proto;
}

v1::TokenLogprobs to_proto(const PositionLogprobs& logprobs) {
  v1::TokenLogprobs proto;
  *proto.mutable_chosen() = to_proto(logprobs.chosen);
  for (const TokenLogprob& token : logprobs.most_probable) *proto.add_top() = to_proto(token);
  return proto;
}

v1::Delta to_proto(const CompletionDelta& delta) {
  v1::Delta proto;
  proto.set_text(delta.text);
  proto.mutable_token_ids()->Add(delta.ids.begin(), delta.ids.end());
  for (const PositionLogprobs& logprobs : delta.logprobs) *proto.add_logprobs() = to_proto(logprobs);
  return proto;
}

v1::Finish to_proto(const CompletionEnd& end) {
  v1::Finish proto;
  proto.set_reason(end.reason == FinishReason::kStop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
  proto.set_stopped_by(end.stopped_by);
  proto.mutable_usage()->set_prompt_tokens(static_cast<uint32_t>(end.prompt_tokens));
  proto.mutable_usage()->set_completion_tokens(static_cast<uint32_t>(end.completion_tokens));
  proto.mutable_usage()->set_cached_tokens(
      static_cast<uint32_t>(std::max(end.account.cached_tokens, end.account.prefix_cached_tokens)));
  *proto.mutable_transfer() = to_proto(end.account);
  return proto;
}

}  // namespace scd
