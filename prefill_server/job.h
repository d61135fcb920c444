// One request for codes on its way through the stages.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/codec/codec.h"
#include "prefill_server/handover.h"
#include "prefill_server/outbox.h"
#include "prefill_server/prefix_names.h"
#include "prefill_server/spans.h"

namespace scd {

// What the consumer is told. Called from any thread, must not block; finished or failed comes last, once.
class PrefillListener {
 public:
  virtual ~PrefillListener() = default;
  virtual void accepted(const HandoverPlan& plan, const Sha256Digest& encoder_id) = 0;
  // Every layer of a chunk has left.
  virtual void chunk_sent(const TokenRange& chunk) = 0;
  // `lanes`: what the data plane used.
  virtual void finished(const SpanLog& spans, uint64_t payload_bytes, size_t messages, const std::string& lanes) = 0;
  virtual void failed(const Failure& failure) = 0;
};

// A chunk whose layers are being encoded.
struct ChunkInWork {
  StoredChunk chunk;
  RankCaps rank;
};

// Shared (std::shared_ptr) by the RPC, the stage that works on it and the transport's callbacks.
class PrefillJob {
 public:
  // At the end, once, on the thread that ended it; the failure is absent when all went well.
  using OnEnd = std::function<void(PrefillJob&, const std::optional<Failure>&)>;

  struct Args {
    PrefillRequest request;
    HandoverPlan plan;
    PrefixNames names;  // of request.tokens
    const Encoder& encoder;
    std::shared_ptr<PrefillListener> listener;  // shared with the RPC it writes to
    OnEnd on_end;
  };

  explicit PrefillJob(Args args)
      : request(std::move(args.request)),
        plan(std::move(args.plan)),
        names(std::move(args.names)),
        encoder(args.encoder),
        rank_(request.codec.rank),
        listener_(std::move(args.listener)),
        on_end_(std::move(args.on_end)) {}
  PrefillJob(const PrefillJob&) = delete;
  PrefillJob& operator=(const PrefillJob&) = delete;
  ~PrefillJob() { fail({ErrorCode::kUnavailable, "the prefill server is shutting down"}); }

  const PrefillRequest request;
  const HandoverPlan plan;
  const PrefixNames names;
  const Encoder& encoder;
  SpanLog spans;
  Outbox outbox;  // the ship stage's
  // The compute thread's, once the job was handed to it:
  int64_t stored_tokens = 0;          // codes of tokens before it came from the code cache
  std::vector<ChunkInWork> encoding;  // of the running batch

  PrefillListener& listener() { return *listener_; }
  LeaseKey key() const { return {request.id, request.generation}; }

  bool ended() const { return ended_.load(std::memory_order_acquire); }
  // The first end counts; later ones are ignored.
  void finish(uint64_t payload_bytes, const std::string& lanes) {
    if (ended_.exchange(true, std::memory_order_acq_rel)) return;
    on_end_(*this, std::nullopt);
    listener_->finished(spans, payload_bytes, plan.messages(), lanes);
  }
  void fail(const Failure& failure) {
    if (ended_.exchange(true, std::memory_order_acq_rel)) return;
    on_end_(*this, failure);
    listener_->failed(failure);
  }

  // Ranks for chunks whose encoding begins from now on.
  void set_rank(const RankCaps& rank) {
    std::scoped_lock lock(rank_mutex_);
    rank_ = rank;
  }
  RankCaps rank() const {
    std::scoped_lock lock(rank_mutex_);
    return rank_;
  }

 private:
  mutable std::mutex rank_mutex_;
  RankCaps rank_;
  std::atomic<bool> ended_{false};
  std::shared_ptr<PrefillListener> listener_;
  OnEnd on_end_;
};

}  // namespace scd
