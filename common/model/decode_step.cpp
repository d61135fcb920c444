#include "common/model/decode_step.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/base/check.h"
#include "common/model/forward_state.h"

namespace scd {

struct DecodeStep::State {
  const Model& model;
  KvCache& cache;
  const int64_t max_batch;
  ForwardState forward = {};
  int64_t moves = 0;  // of the batch's copy that recordings read
  std::vector<int64_t> rows = {};
  struct Recording {
    kernels::RecordedWork work;
    kernels::ConstMatrix logits;
    bool warm = false;  // ran once with these shapes: its memory exists and its GEMMs are chosen
  };
  std::map<int64_t, Recording> recordings = {};  // by batch size

  kernels::ConstMatrix compute() {
    forward.next_layer = 0;
    forward.embed();
    while (forward.next_layer < model.config().layers) forward.run_layer();
    return forward.logits(rows);
  }
};

DecodeStep::DecodeStep(const Model& model, KvCache& cache, int64_t max_batch)
    : state_(new State{.model = model, .cache = cache, .max_batch = max_batch}) {
  if (model.device() == kernels::Device::kCpu) return;
  state_->forward.reserve(model, cache, max_batch);
  state_->moves = state_->forward.batch.moves();
}

DecodeStep::~DecodeStep() = default;

kernels::ConstMatrix DecodeStep::run(std::span<const SequenceChunk> batch) {
  State& state = *state_;
  for (const SequenceChunk& chunk : batch) SCD_CHECK(chunk.tokens.size() == 1, "one token of each sequence");
  const auto count = static_cast<int64_t>(batch.size());
  state.rows.resize(batch.size());
  std::iota(state.rows.begin(), state.rows.end(), 0);
  state.forward.begin(state.model, state.cache, batch);
  const bool adapted = std::ranges::any_of(batch, [](const auto& chunk) { return chunk.adapter != nullptr; });
  if (state.model.device() == kernels::Device::kCpu || count > state.max_batch || adapted) return state.compute();
  if (state.moves != state.forward.batch.moves()) state.recordings.clear();
  state.moves = state.forward.batch.moves();
  State::Recording& recording = state.recordings[count];
  if (!recording.work.replayable()) {
    if (!recording.warm) {
      recording.warm = true;
      return state.compute();
    }
    recording.work.record([&] { recording.logits = state.compute(); });
  }
  recording.work.replay();
  return recording.logits;
}

}  // namespace scd
