#include "common/model/decode_step.h"

#include <algorithm>
#include <numeric>
#include <utility>
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
    kernels::Matrix logits;
    bool warm = false;  // ran once with these shapes: its memory exists and its GEMMs are chosen
  };
  std::map<int64_t, Recording> recordings = {};  // by batch size

  void begin(std::span<const SequenceChunk> batch) {
    rows.resize(batch.size());
    std::iota(rows.begin(), rows.end(), 0);
    forward.begin(model, cache, batch);
  }
  kernels::Matrix compute() {
    forward.next_layer = 0;
    forward.embed();
    while (forward.next_layer < model.config().layers) forward.run_layer();
    return forward.logits(rows);
  }
  void record(Recording& recording) {
    recording.work.record([&] { recording.logits = compute(); });
  }
};

DecodeStep::DecodeStep(const Model& model, KvCache& cache, int64_t max_batch)
    : state_(new State{.model = model, .cache = cache, .max_batch = max_batch}) {
  if (model.device() == kernels::Device::kCpu) return;
  state_->forward.reserve(model, cache, max_batch);
  state_->moves = state_->forward.batch.moves();
}

DecodeStep::~DecodeStep() = default;

kernels::ConstMatrix DecodeStep::record(int64_t sequences) {
  State& state = *state_;
  const int64_t most = std::min(sequences, state.max_batch);
  if (state.model.device() == kernels::Device::kCpu || most == 0) return {};
  PageTable pages = state.cache.pool().make_table();
  std::move(pages.reserve(1)).value_or_throw();
  const TokenId token = 0;
  const SequenceChunk chunk{.pages = &pages, .first_position = 0, .tokens = std::span(&token, 1)};
  const std::vector<SequenceChunk> batch(static_cast<size_t>(most), chunk);
  // The largest first: it takes most of the scratch memory. Where that moves later, the second round records again.
  for (int round = 0; round < 2; ++round) {
    for (int64_t count = most; count > 0; --count) {
      State::Recording& recording = state.recordings[count];
      if (recording.work.replayable()) continue;
      state.begin(std::span(batch).first(static_cast<size_t>(count)));
      if (!std::exchange(recording.warm, true)) state.compute();
      state.record(recording);
    }
  }
  return state.recordings[most].logits;
}

kernels::Matrix DecodeStep::run(std::span<const SequenceChunk> batch) {
  State& state = *state_;
  for (const SequenceChunk& chunk : batch) SCD_CHECK(chunk.tokens.size() == 1, "one token of each sequence");
  const auto count = static_cast<int64_t>(batch.size());
  state.begin(batch);
  const bool adapted = std::ranges::any_of(batch, [](const auto& chunk) { return chunk.adapter != nullptr; });
  if (state.model.device() == kernels::Device::kCpu || count > state.max_batch || adapted) return state.compute();
  if (state.moves != state.forward.batch.moves()) state.recordings.clear();
  state.moves = state.forward.batch.moves();
  State::Recording& recording = state.recordings[count];
  if (!recording.work.replayable()) {
    if (!std::exchange(recording.warm, true)) return state.compute();
    state.record(recording);
  }
  recording.work.replay();
  return recording.logits;
}

}  // namespace scd
