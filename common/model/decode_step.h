// One token of each of some sequences: the step that continuous batching repeats. On a GPU it is recorded once for each
// batch size and replayed, so that a step costs one launch, allocates nothing and waits for nothing. Steps with
// adapters have recordings of their own, whichever adapters these are.
#pragma once

#include <map>
#include <memory>
#include <span>

#include "common/model/forward.h"
#include "kernels/device.h"
#include "kernels/sampled_rows.h"

namespace scd {

// Not thread-safe, as ForwardPass. References must outlive it.
class DecodeStep {
 public:
  // Batches of more than max_batch sequences run without a recording; others are recorded when they come first.
  DecodeStep(const Model& model, KvCache& cache, int64_t max_batch);
  ~DecodeStep();

  struct Warmth {
    kernels::Matrix logits = {};  // of a large step, for whoever warms up with them; none on the CPU
    int64_t recorded = 0;         // sequences of the largest step with a recording
    int64_t recorded_with_adapters = 0;
  };
  // On a GPU: records the steps of all batches up to so many sequences, or up to what its memory holds, in a page that
  // is given back; larger ones run without. adapters: those with adapters, too, which are otherwise recorded when they
  // come first. Throws RESOURCE_EXHAUSTED where the cache has no page.
  Warmth record(int64_t sequences, bool adapters = false);

  // Chunks of one token each; the logits after it, [batch, vocab] F32, on the model's device until the next run;
  // the caller may change them. sampled: the chunks' tokens are those, row by row, which the host need not know yet.
  kernels::Matrix run(std::span<const SequenceChunk> batch, const kernels::SampledRows* sampled = nullptr);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace scd
