// A prompt whose prefix arrives as codes. What needs token ids only (the sinks, the first layers) runs while they
// travel; the last tokens run natively over the rebuilt prefix, each layer as soon as all of it is in the cache.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "common/model/forward.h"
#include "common/transport/staging.h"
#include "decode_server/job.h"
#include "decode_server/rebuild/prefix_rebuild.h"
#include "decode_server/rebuild/prompt_work.h"
#include "decode_server/stages.h"

namespace scd {

class CodedPrompt : public PromptWork {
 public:
  struct Args {
    const Model& model;
    KvCache& cache;
    DecodeJob& job;
    TransferWish wish;
    int64_t sinks = 0;                                     // first tokens computed here, as far as they are not held
    int64_t chunk_tokens = 0;                              // of native work
    std::function<void(uint32_t sequence)> on_chunk_done;  // its slot is free again
  };
  explicit CodedPrompt(Args args);

  // The first or a further prefill server took the request: what came from an earlier one is forgotten.
  void begin(TransferPlan plan);
  // Of the current plan, or ahead of it: the data plane may be faster than the control stream.
  void push(ReceivedMessage message);
  // The current prefill server is given up; its messages are dropped.
  void forget_messages();

  PromptStep next() const override;
  Result<Done> run() override;
  std::span<const float> logits() override;

  int64_t wire_bytes() const { return wire_bytes_; }  // payloads and headers rebuilt
  int64_t wire_messages() const { return wire_messages_; }
  // Spent on messages becoming keys and values, native layers included.
  ServingClock::duration rebuild_time() const { return rebuild_time_; }

 private:
  bool exact_pending() const;
  void run_exact();
  void run_sinks();
  std::deque<ReceivedMessage>::const_iterator next_message() const;
  std::deque<CodeBlock>::const_iterator next_block() const;
  bool rebuild_possible() const;
  Result<Done> rebuild();
  Result<Done> rebuild_one();
  Result<Done> read_ahead();
  void count(const ReceivedMessage& message);
  SequenceChunk tokens(int64_t begin, int64_t end) const;

  Args args_;
  const int64_t native_tokens_;  // first tokens of which no code is wanted: held, or computed from their ids
  bool sinks_pending_;
  std::optional<NativeLayers> exact_;  // layers [0, wish.first_layer) of the hand-over
  std::deque<ReceivedMessage> messages_;
  std::deque<CodeBlock> blocks_;  // read, of messages whose slots are free again
  std::optional<PrefixRebuild> rebuild_;
  std::unique_ptr<ForwardPass> suffix_;
  int64_t wire_bytes_ = 0;
  int64_t wire_messages_ = 0;
  ServingClock::duration rebuild_time_{0};
};

}  // namespace scd
