// Turns a computed layer into codes, on the compute thread: reads keys and values back from the paged cache, encodes
// chunk by chunk, makes the CRC, hands each code on at once, and gives finished chunks to the code cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "prefill_server/computed_layer.h"
#include "prefill_server/encode/code_cache.h"
#include "prefill_server/job.h"

namespace scd {

class EncodeStage {
 public:
  using Job = std::shared_ptr<PrefillJob>;  // shared as PrefillJob says
  using OnCode = std::function<void(const Job&, CodeUnit)>;

  // The cache must outlive the stage. model_layers: of the producer.
  EncodeStage(CodeCache& cache, int32_t model_layers, OnCode on_code);

  // For the one thread that computes. Nothing for layers and chunks that are not to be sent or came from the cache.
  void encode(const Job& job, const ComputedLayer& state);

 private:
  CodeUnit encode_chunk(const PrefillJob& job, const ComputedLayer& state, const ChunkInWork& work);
  void store(const PrefillJob& job, ChunkInWork& work);

  CodeCache& cache_;
  const int32_t model_layers_;
  const OnCode on_code_;
  std::vector<float> keys_;  // of the chunk being encoded
  std::vector<float> values_;
};

}  // namespace scd
