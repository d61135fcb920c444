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
#include <span>
#include <utility>
#include <vector>

#include "kernels/grow_buffer.h"
#include "prefill_server/computed_layer.h"
#include "prefill_server/encode/code_cache.h"
#include "prefill_server/job.h"
#include "prefill_server/queued_spans.h"

namespace scd {

class EncodeStage {
 public:
  using Job = std::shared_ptr<PrefillJob>;  // shared as PrefillJob says
  using OnCode = std::function<void(const Job&, CodeUnit)>;

  // Cache and spans must outlive the stage.
  EncodeStage(CodeCache& cache, QueuedSpans& spans, OnCode on_code);

  // For the one thread that computes. A step computes tokens of one or more prompts; the layers of each come in order.
  // Nothing is made for layers and chunks that are not to be sent or came from the cache.
  void begin_step(std::span<const StepPart> parts);
  // Nothing of the step is held any more, but for memory that the next ones use again.
  void end_step();
  void keep_residual(const Job& job, const ResidualStream& residual);
  void encode(const Job& job, const ComputedLayer& state);

 private:
  struct Residual {
    kernels::Matrix rows;
    KeptAnchor as_anchor;
  };
  // What the running step computes of one prompt.
  struct Part {
    Job job;
    TokenRange tokens;
    int64_t first_row = 0;  // of the step's
    size_t next_unit = 0;
    std::optional<ComputedLayer> computed;  // the last
    std::map<int32_t, Residual> residuals;  // before the layers the encoder needs them of
  };

  Part& part_of(const Job& job);
  kernels::Matrix stream_memory(const ResidualStream& residual, kernels::Device device);
  void encode_ready(Part& part);
  static bool is_ready(const Part& part, size_t unit);
  void encode_unit(Part& part, size_t unit);
  LayerChunk rows_of_unit(Part& part, size_t unit, const TokenRange& tokens);
  size_t most_pending() const;
  void hand_on_finished(size_t most_left);
  void hand_on_next();
  void hand_on(const Job& job, size_t unit, ChunkInWork& work, ByteBuffer payload);
  void read_keys_values(const ComputedLayer& state, const UnitSource& source, const TokenRange& tokens,
                        kernels::Device device);
  static kernels::ConstMatrix residual_rows(const Part& part, int32_t layer, const TokenRange& tokens);
  void store(const PrefillJob& job, ChunkInWork& work);

  CodeCache& cache_;
  QueuedSpans& spans_;
  const OnCode on_code_;
  std::vector<Part> parts_;
  int64_t step_rows_ = 0;                                                       // of all parts
  std::map<std::pair<int32_t, kernels::Device>, kernels::GrowBuffer> streams_;  // of the step
  std::vector<kernels::GrowBuffer> spare_;                                      // of steps before
  kernels::GrowBuffer keys_memory_, values_memory_;
  kernels::Matrix keys_, values_;         // of the unit being encoded, where the encoder works
  std::vector<kernels::PagedKv> layers_;  // of the same, where the encoder reads pages
  // Encoders on a GPU code units while the next layers run: they are handed on in order, each when a later layer finds
  // it finished.
  struct Pending {
    Job job;
    size_t unit = 0;
    std::unique_ptr<PendingPayloads> payloads;
    uint64_t span = 0;  // of its making
  };
  std::deque<Pending> pending_;
};

}  // namespace scd
