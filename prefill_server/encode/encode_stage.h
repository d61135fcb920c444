// Turns computed layers into codes, on the compute thread: as soon as all that a unit is coded from is there, and the
// units before it are coded, it reads keys and values back from the paged cache, encodes chunk by chunk, makes the CRC,
// hands each code on at once, and gives finished chunks to the code cache.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/grow_buffer.h"
#include "prefill_server/computed_layer.h"
#include "prefill_server/encode/code_cache.h"
#include "prefill_server/job.h"

namespace scd {

class EncodeStage {
 public:
  using Job = std::shared_ptr<PrefillJob>;  // shared as PrefillJob says
  using OnCode = std::function<void(const Job&, CodeUnit)>;

  // The cache must outlive the stage.
  EncodeStage(CodeCache& cache, OnCode on_code);

  // For the one thread that computes; a batch's layers come in order, and no other batch between them. Nothing is made
  // for layers and chunks that are not to be sent or came from the cache.
  void begin_batch(const Job& job, const TokenRange& tokens);
  void keep_residual(const Job& job, const ResidualStream& residual);
  void encode(const Job& job, const ComputedLayer& state);

 private:
  void encode_ready(const Job& job);
  bool is_ready(const PrefillJob& job, size_t unit) const;
  void encode_unit(const Job& job, size_t unit);
  LayerChunk rows_of_unit(const PrefillJob& job, size_t unit, const TokenRange& tokens);
  void hand_on_finished(size_t most_left);
  void hand_on_next();
  void hand_on(const Job& job, size_t unit, ChunkInWork& work, ByteBuffer payload);
  void read_keys_values(const UnitSource& source, const TokenRange& tokens, kernels::Device device);
  kernels::ConstMatrix residual_rows(int32_t layer, const TokenRange& tokens) const;
  void store(const PrefillJob& job, ChunkInWork& work);

  CodeCache& cache_;
  const OnCode on_code_;
  TokenRange batch_;
  size_t next_unit_ = 0;
  std::optional<ComputedLayer> computed_;  // of the batch, the last
  struct Residual {
    kernels::GrowBuffer memory;
    kernels::Matrix rows;
  };
  std::map<int32_t, Residual> residuals_;  // of the batch, before the layers the encoder needs them of
  kernels::GrowBuffer keys_memory_, values_memory_;
  kernels::Matrix keys_, values_;  // of the unit being encoded, where the encoder works
  // Encoders on a GPU code units while the next layers run: they are handed on in order, each when a later layer finds
  // it finished.
  struct Pending {
    Job job;
    size_t unit = 0;
    std::unique_ptr<PendingPayloads> payloads;
  };
  std::deque<Pending> pending_;
};

}  // namespace scd
