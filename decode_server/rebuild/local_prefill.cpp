#include "decode_server/rebuild/local_prefill.h"

#include <algorithm>

namespace scd {

LocalPrefill::LocalPrefill(const Model& model, KvCache& cache, DecodeJob& job, int64_t chunk_tokens)
    : model_(model),
      cache_(cache),
      job_(job),
      chunk_tokens_(chunk_tokens),
      chunk_begin_(job.held_tokens),
      chunk_end_(job.held_tokens) {}

PromptStep LocalPrefill::next() const {
  const bool last_chunk = chunk_end_ == std::ssize(job_.request.prompt);
  const bool done = last_chunk && pass_ != nullptr && pass_->next_layer() == model_.config().layers;
  return done ? PromptStep::kFirstToken : PromptStep::kLocalPrefill;
}

Result<Done> LocalPrefill::run() {
  const auto begin = ServingClock::now();
  if (pass_ == nullptr || pass_->next_layer() == model_.config().layers) {
    chunk_begin_ = chunk_end_;
    chunk_end_ = std::min(chunk_begin_ + chunk_tokens_, std::ssize(job_.request.prompt));
    const SequenceChunk chunk{
        .pages = &job_.pages,
        .first_position = chunk_begin_,
        .tokens = std::span(job_.request.prompt)
                      .subspan(static_cast<size_t>(chunk_begin_), static_cast<size_t>(chunk_end_ - chunk_begin_))};
    pass_ = std::make_unique<ForwardPass>(model_, cache_, std::span(&chunk, 1));
  }
  const bool last_chunk = chunk_end_ == std::ssize(job_.request.prompt);
  const bool last_layer = pass_->next_layer() + 1 == model_.config().layers;
  if (last_layer && !last_chunk) {
    pass_->run_keys_values_only();
  } else {
    pass_->run_layer();
  }
  job_.timeline.add(TransferPart::kPrefill, begin, ServingClock::now());
  return Done{};
}

std::span<const float> LocalPrefill::logits() {
  const int64_t last_row = pass_->rows() - 1;
  const kernels::ConstMatrix logits = pass_->logits(std::span(&last_row, 1));
  return {logits.row<float>(0), static_cast<size_t>(logits.columns)};
}

}  // namespace scd
