// The consumer computes the prompt itself: the oracle, and the last rung of the fallback ladder.
#pragma once

#include <memory>

#include "common/model/forward.h"
#include "decode_server/job.h"
#include "decode_server/rebuild/prompt_work.h"

namespace scd {

class LocalPrefill : public PromptWork {
 public:
  // Begins behind job.held_tokens. All must outlive this. Chunks of chunk_tokens bound the memory of activations and
  // how long one piece of work takes.
  LocalPrefill(const Model& model, KvCache& cache, DecodeJob& job, int64_t chunk_tokens);

  PromptStep next() const override;
  Result<Done> run() override;
  std::span<const float> logits() override;

 private:
  const Model& model_;
  KvCache& cache_;
  DecodeJob& job_;
  const int64_t chunk_tokens_;
  int64_t chunk_begin_;
  int64_t chunk_end_;
  std::unique_ptr<ForwardPass> pass_;  // of the chunk [chunk_begin_, chunk_end_)
};

}  // namespace scd
