// A prompt whose prefix arrives as codes. What needs token ids only (the sinks, the first layers) runs while they
// travel; the last tokens run natively over the rebuilt prefix, each layer as soon as all of it is in the cache.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "common/model/forward.h"
#include "common/transport/staging.h"
#include "decode_server/job.h"
#include "decode_server/rebuild/prefix_rebuild.h"
#include "decode_server/stages.h"

namespace scd {

// By rising urgency.
enum class CodedStep : uint8_t {
  kWait,            // nothing can be done until something arrives
  kRebuild,         // sinks, layer 0, or messages of codes
  kSuffixLayer,     // a layer of the last tokens over the rebuilt prefix
  kPrefixComplete,  // all that codes are for is in the cache
  kFirstToken,      // so is the suffix: only the logits are left
};

class CodedPrompt {
 public:
  struct Args {
    const Model& model;
    KvCache& cache;
    DecodeJob& job;
    const Adapter* adapter = nullptr;  // of the job's model
    std::span<const TokenId> tokens;   // of the prompt, and those behind it that are to be computed with its suffix
    TransferWish wish;
    int64_t sinks = 0;                             // first tokens computed here, as far as they are not held
    int64_t chunk_tokens = 0;                      // of native work
    std::function<void(ReceivedMessage)> on_read;  // nobody here needs it any more
  };
  explicit CodedPrompt(Args args);

  // The first or a further prefill server took the request: what came from an earlier one is forgotten.
  void begin(TransferPlan plan);
  // Of the current plan, or ahead of it: the data plane may be faster than the control stream.
  void push(ReceivedMessage message);
  // One that came earlier and was kept.
  void push_again(ReceivedMessage message) { messages_.push_back(std::move(message)); }
  // Those that were not rebuilt yet.
  std::deque<ReceivedMessage> take_messages() { return std::exchange(messages_, {}); }
  // The current prefill server is given up; its messages are dropped.
  void forget_messages();

  // suffix_by_layers: the suffix is computed here, each layer as soon as it can be; else it is left to others when the
  // prefix is complete, unless it has begun.
  CodedStep next(bool suffix_by_layers) const;
  // kRebuild and kSuffixLayer; returns what it cost, in whole passes of a token. DATA_LOSS as PrefixRebuild::apply().
  Result<double> run(bool suffix_by_layers);
  // At kFirstToken: logits [1, vocab] of the last token on the model's device, and the caller's to change; while this
  // lives.
  kernels::Matrix logits();
  // At kPrefixComplete: tokens before it are in the cache.
  int64_t handover_tokens() const { return rebuild_->plan().handover_tokens; }

  int64_t wire_bytes() const { return wire_bytes_; }  // payloads and headers rebuilt
  int64_t wire_messages() const { return wire_messages_; }
  // Spent on messages becoming keys and values, native layers included.
  ServingClock::duration rebuild_time() const { return rebuild_time_; }

 private:
  bool exact_pending() const;
  double share_of_layers(double layers) const;
  double run_exact();
  double run_sinks();
  double run_suffix();
  double run_native();
  std::deque<ReceivedMessage>::const_iterator next_message() const;
  std::deque<CodeBlock>::const_iterator next_block() const;
  bool may_read() const;
  bool rebuild_possible() const;
  Result<double> rebuild();
  Result<double> rebuild_one();
  Result<double> begin_reading();
  Result<Done> finish_reading();
  double count(const ReceivedMessage& message);
  SequenceChunk tokens(int64_t begin, int64_t end) const;

  Args args_;
  const int64_t native_tokens_;  // first tokens of which no code is wanted: held, or computed from their ids
  bool sinks_pending_;
  std::optional<NativeLayers> exact_;  // layers [0, wish.first_layer) of the hand-over
  std::deque<ReceivedMessage> messages_;
  std::optional<PrefixRebuild> rebuild_;
  std::deque<std::unique_ptr<PendingBlocks>> reading_;  // by its decoder, of messages whose slots are free again
  std::deque<CodeBlock> blocks_;                        // read
  std::unique_ptr<ForwardPass> suffix_;
  int64_t exact_rows_ = 0;  // of the chunk that exact_ runs
  int64_t wire_bytes_ = 0;
  int64_t wire_messages_ = 0;
  ServingClock::duration rebuild_time_{0};
};

}  // namespace scd
