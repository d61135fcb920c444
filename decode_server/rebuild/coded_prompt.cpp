#include "decode_server/rebuild/coded_prompt.h"

#include <algorithm>
#include <utility>

namespace scd {

CodedPrompt::CodedPrompt(Args args)
    : args_(std::move(args)), sinks_pending_(args_.sinks > 0), layer0_done_(args_.sinks) {}

void CodedPrompt::begin(TransferPlan plan) {
  suffix_.reset();
  rebuild_.emplace(PrefixRebuild::Args{args_.model, args_.cache, args_.job, std::move(plan), args_.sinks});
  wire_bytes_ = 0;
  wire_messages_ = 0;
}

void CodedPrompt::push(ReceivedMessage message) {
  args_.job.timeline.add(TransferPart::kWire, message.announced_at(), message.received_at());
  messages_.push_back(std::move(message));
}

void CodedPrompt::forget_messages() {
  messages_.clear();
  suffix_.reset();
  rebuild_.reset();
}

PromptStep CodedPrompt::next() const {
  if (native_pending()) return PromptStep::kRebuild;
  if (!rebuild_) return PromptStep::kWait;
  const int32_t layer = suffix_ == nullptr ? 0 : suffix_->next_layer();
  if (layer == args_.model.config().layers) return PromptStep::kFirstToken;
  if (rebuild_->layer_ready(layer)) return PromptStep::kSuffixLayer;
  return messages_.empty() ? PromptStep::kWait : PromptStep::kRebuild;
}

Result<Done> CodedPrompt::run() {
  const PromptStep step = next();
  const auto begin = ServingClock::now();
  Result<Done> outcome = Done{};
  if (step == PromptStep::kSuffixLayer) {
    if (suffix_ == nullptr) {
      const SequenceChunk suffix = tokens(rebuild_->plan().handover_tokens, std::ssize(args_.job.request.prompt));
      suffix_ = std::make_unique<ForwardPass>(args_.model, args_.cache, std::span(&suffix, 1));
    }
    suffix_->run_layer();
  } else if (native_pending()) {
    run_native();
  } else {
    outcome = rebuild_one();
  }
  const auto part = step == PromptStep::kSuffixLayer ? TransferPart::kSuffix : TransferPart::kRebuild;
  args_.job.timeline.add(part, begin, ServingClock::now());
  return outcome;
}

std::span<const float> CodedPrompt::logits() {
  const int64_t last_row = suffix_->rows() - 1;
  const kernels::ConstMatrix logits = suffix_->logits(std::span(&last_row, 1));
  return {logits.row<float>(0), static_cast<size_t>(logits.columns)};
}

bool CodedPrompt::native_pending() const {
  return sinks_pending_ || (args_.wish.first_layer > 0 && layer0_done_ < args_.wish.handover_tokens);
}

void CodedPrompt::run_native() {
  if (sinks_pending_) {
    const SequenceChunk sinks = tokens(0, args_.sinks);
    ForwardPass pass(args_.model, args_.cache, std::span(&sinks, 1));
    for (int32_t layer = 0; layer + 1 < args_.model.config().layers; ++layer) pass.run_layer();
    pass.run_keys_values_only();
    sinks_pending_ = false;
    return;
  }
  const int64_t end = std::min(layer0_done_ + args_.chunk_tokens, args_.wish.handover_tokens);
  const SequenceChunk chunk = tokens(layer0_done_, end);
  ForwardPass(args_.model, args_.cache, std::span(&chunk, 1)).run_keys_values_only();
  layer0_done_ = end;
}

Result<Done> CodedPrompt::rebuild_one() {
  std::optional<ReceivedMessage> message(std::move(messages_.front()));
  messages_.pop_front();
  const uint32_t sequence = message->header().sequence;
  if (auto applied = rebuild_->apply(*message); !applied) return applied;
  wire_bytes_ += static_cast<int64_t>(message->header().payload_bytes + kMessageHeaderBytes);
  ++wire_messages_;
  message.reset();  // frees the slot before the sender learns of it
  args_.on_chunk_done(sequence);
  return Done{};
}

SequenceChunk CodedPrompt::tokens(int64_t begin, int64_t end) const {
  return {
      .pages = &args_.job.pages,
      .first_position = begin,
      .tokens =
          std::span(args_.job.request.prompt).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))};
}

}  // namespace scd
