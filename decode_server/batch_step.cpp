#include "decode_server/batch_step.h"

#include <algorithm>
#include <utility>

#include "decode_server/sequence.h"

namespace scd {

BatchStep::BatchStep(const Model& model, KvCache& cache, std::vector<Member> members)
    : model_(model), members_(std::move(members)) {
  std::vector<SequenceChunk> chunks;
  int64_t rows = 0;
  for (const Member& member : members_) {
    chunks.push_back(member.sequence->chunk(member.tokens));
    rows += member.tokens;
    if (member.samples) sampled_rows_.push_back(rows - 1);
  }
  pass_ = std::make_unique<ForwardPass>(model, cache, chunks);
}

bool BatchStep::contains(const Sequence& sequence) const {
  return std::ranges::any_of(members_, [&](const Member& member) { return member.sequence == &sequence; });
}

void BatchStep::leave(Sequence& sequence) {
  for (Member& member : members_) {
    if (member.sequence != &sequence) continue;
    member.sequence = nullptr;
    left_behind_.push_back({sequence.job().model, std::move(sequence.job().pages)});
  }
}

bool BatchStep::done() const { return layers_run_ == model_.config().layers; }

void BatchStep::run_layer() {
  // Where nobody samples, keys and values are all that the last layer is for.
  if (++layers_run_ == model_.config().layers && !anyone_samples()) {
    pass_->run_keys_values_only();
  } else {
    pass_->run_layer();
  }
  const auto turn = static_cast<size_t>(layers_run_ % 2);
  behind_layer_[turn].mark(model_.device());
  behind_layer_[1 - turn].wait();
}

void BatchStep::wait() const { behind_layer_[static_cast<size_t>(layers_run_ % 2)].wait(); }

kernels::Matrix BatchStep::logits() { return pass_->logits_on_device(sampled_rows_); }

}  // namespace scd
