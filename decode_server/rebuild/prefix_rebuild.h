// Codes of a prompt's prefix become keys and values in the consumer's paged cache. Everything that arrives is checked
// against the plan: checksum, place, encoder; what does not fit is refused and nothing of it is written.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/rebuild/plan_rebuild.h"
#include "common/transport/staging.h"
#include "decode_server/job.h"
#include "decode_server/stages.h"

namespace scd {

class PrefixRebuild {
 public:
  struct Args {
    const Model& model;
    KvCache& cache;
    const DecodeJob& job;
    TransferPlan plan;
    int64_t native_tokens = 0;  // tokens [0, native_tokens) are computed natively: codes for them are not written
    const NativeLayers* exact_layers = nullptr;  // runs layers [0, plan.layers.exact_layers); null: done
    const Adapter* adapter = nullptr;            // of the job's model
    int64_t native_rows = 0;                     // as PlanRebuild::Args
  };
  // Args are references to what must outlive this.
  explicit PrefixRebuild(Args args);
  PrefixRebuild(const PrefixRebuild&) = delete;
  PrefixRebuild& operator=(const PrefixRebuild&) = delete;

  // What the message's codes are predicted from is here, or the message is one that apply() refuses.
  bool applicable(const ReceivedMessage& message) const;
  // DATA_LOSS names the message and what is wrong with it. May leave a native span running().
  Result<Done> apply(const ReceivedMessage& message);
  // Of a decoder that reads ahead: all messages at once, whose slots are free then; and, in any order in which they
  // become applicable, the blocks that they become.
  bool reads_ahead() const { return args_.plan.decoder->reads_ahead(); }
  Result<std::unique_ptr<PendingBlocks>> begin_reading(std::span<const ReceivedMessage> messages);
  bool applicable(const CodeBlock& block) const;
  void apply(const CodeBlock& block);
  bool running() const { return units_.running(); }
  int64_t running_tokens() const { return units_.running_tokens(); }
  void run_layer() { units_.run_layer(); }
  // The layer's keys and values are all in the cache.
  bool layer_ready(int32_t layer) const;
  bool complete() const;  // those of all layers
  const TransferPlan& plan() const { return args_.plan; }

 private:
  Result<Done> check_place(const MessageHeader& header) const;
  std::vector<bool>::reference arrived(const MessageHeader& header);
  int64_t chunk_index(int64_t token) const { return token / args_.plan.chunk_tokens - first_chunk_; }

  const Args args_;
  const int64_t first_chunk_;
  const int64_t chunks_;
  std::vector<bool> arrived_;          // [units, chunks]
  std::vector<int64_t> chunks_ready_;  // [units]
  PlanRebuild units_;
};

}  // namespace scd
