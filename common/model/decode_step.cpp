#include "common/model/decode_step.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/model/forward_state.h"

namespace scd {
namespace {

constexpr int64_t kLargestWarm = 256;  // sequences of a step that is computed only to have its memory

}  // namespace

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
    bool refused = false;  // there was no memory for it: its steps cost more launches
  };
  // Steps without adapters, and steps with some.
  struct Kind {
    int64_t most_recorded = 0;                     // of sequences
    std::map<int64_t, Recording> recordings = {};  // by batch size
  };
  std::array<Kind, 2> kinds = {Kind{max_batch}, Kind{max_batch}};

  void begin(std::span<const SequenceChunk> batch, bool for_any_adapter) {
    rows.resize(batch.size());
    std::iota(rows.begin(), rows.end(), 0);
    forward.for_any_adapter = for_any_adapter;
    if (for_any_adapter) forward.reserve_adapters(max_batch);
    forward.begin(model, cache, batch);
  }
  kernels::Matrix compute() {
    forward.next_layer = 0;
    forward.embed();
    while (forward.next_layer < model.config().layers) forward.run_layer();
    return forward.logits(rows);
  }
  // Computes a step for which there is no recording, and makes one: by then its memory exists and its GEMMs are chosen.
  kernels::Matrix compute_and_record(Recording& recording) {
    const kernels::Matrix logits = compute();
    try {
      recording.work.record([&] { recording.logits = compute(); });
    } catch (const kernels::OutOfDeviceMemory&) {
      recording.refused = true;
    }
    return logits;
  }
};

DecodeStep::DecodeStep(const Model& model, KvCache& cache, int64_t max_batch)
    : state_(new State{.model = model, .cache = cache, .max_batch = max_batch}) {
  if (model.device() == kernels::Device::kCpu) return;
  state_->forward.reserve(model, cache, max_batch);
  state_->moves = state_->forward.batch.moves();
}

DecodeStep::~DecodeStep() = default;

DecodeStep::Warmth DecodeStep::record(int64_t sequences, bool adapters) {
  State& state = *state_;
  if (state.model.device() == kernels::Device::kCpu) return {};
  PageTable pages = state.cache.pool().make_table();
  std::move(pages.reserve(1)).value_or_throw();
  const TokenId token = 0;
  const SequenceChunk chunk{.pages = &pages, .first_position = 0, .tokens = std::span(&token, 1)};
  const int64_t largest = std::min(state.max_batch, std::max(sequences, kLargestWarm));
  const std::vector<SequenceChunk> batch(static_cast<size_t>(largest), chunk);
  // First the largest step there may be, so that scratch memory does not move later.
  state.begin(batch, adapters);
  const kernels::Matrix logits = state.compute();
  for (State::Kind& kind : state.kinds) kind.most_recorded = std::min(sequences, state.max_batch);
  const size_t kinds = adapters ? 2 : 1;
  for (int round = 0; round < 2; ++round) {  // scratch memory may move until all sizes have run
    for (size_t i = 0; i < kinds; ++i) {
      State::Kind& kind = state.kinds[i];
      for (int64_t count = 1; count <= kind.most_recorded; ++count) {
        State::Recording& recording = kind.recordings[count];
        if (recording.work.replayable()) continue;
        state.begin(std::span(batch).first(static_cast<size_t>(count)), i == 1);
        state.compute_and_record(recording);
        if (recording.refused) kind.most_recorded = count - 1;
      }
    }
  }
  return {.logits = logits,
          .recorded = state.kinds[0].most_recorded,
          .recorded_with_adapters = adapters ? state.kinds[1].most_recorded : 0};
}

kernels::Matrix DecodeStep::run(std::span<const SequenceChunk> batch, const kernels::SampledRows* sampled) {
  State& state = *state_;
  for (const SequenceChunk& chunk : batch) SCD_CHECK(chunk.tokens.size() == 1, "one token of each sequence");
  const auto count = static_cast<int64_t>(batch.size());
  const bool adapted = std::ranges::any_of(batch, [](const auto& chunk) { return chunk.adapter != nullptr; });
  State::Kind& kind = state.kinds[adapted ? 1 : 0];
  const bool recorded = state.model.device() == kernels::Device::kGpu && count <= kind.most_recorded;
  state.begin(batch, adapted && recorded);
  if (sampled != nullptr) state.forward.take_tokens(*sampled);
  if (!recorded) return state.compute();
  if (state.moves != state.forward.batch.moves()) {
    for (State::Kind& each : state.kinds) each.recordings.clear();
  }
  state.moves = state.forward.batch.moves();
  State::Recording& recording = kind.recordings[count];
  if (recording.refused) return state.compute();
  if (!recording.work.replayable()) return state.compute_and_record(recording);
  recording.work.replay();
  return recording.logits;
}

}  // namespace scd
