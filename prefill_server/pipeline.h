// The stages behind a request and how they are joined: code cache -> prefill -> encode -> ship.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/kv/kv_cache.h"
#include "common/model/model.h"
#include "common/transport/transport.h"
#include "prefill_server/config.h"
#include "prefill_server/encode/code_cache.h"
#include "prefill_server/encode/encode_stage.h"
#include "prefill_server/job_ledger.h"
#include "prefill_server/metrics.h"
#include "prefill_server/prefill/prefill_stage.h"
#include "prefill_server/producer.h"
#include "prefill_server/ship/shipper.h"
#include "prefill_server/stages.h"

namespace scd {

class Pipeline : public HandoverService {
 public:
  struct Args {
    const PrefillConfig& config;
    const Producer& producer;
    const Model& model;
    KvCache& kv_cache;
    Transport& transport;
    PrefillMetrics& metrics;
    CodeStore* code_store = nullptr;  // shared with other servers; null: none
  };

  // The arguments must outlive the pipeline.
  explicit Pipeline(Args args);
  ~Pipeline() override;  // live jobs end with UNAVAILABLE

  // Waits until a first pass of the model has run; once.
  void warm() { prefill_->warm(); }

  std::shared_ptr<PrefillJob> begin(PrefillRequest request, std::shared_ptr<PrefillListener> listener) override;
  void grant(const std::shared_ptr<PrefillJob>& job, uint32_t messages) override;
  void acknowledge(const std::shared_ptr<PrefillJob>& job, uint32_t sequence) override;
  PrefillLoad load() const override;

  // Refuses new jobs from now on, waits for the others; returns how many were still living at the deadline and ended.
  size_t drain(PrefillClock::time_point deadline);
  // Ends live jobs now; a drain that waits returns.
  size_t end_all(const Failure& failure);

  // Nothing is computed, and so nothing sent, from now on.
  void stop_computing() { prefill_->stop(); }

  OutcomeCounts outcomes() const { return ledger_.outcomes(); }
  CodeCacheCounters code_cache() const { return cache_.counters(); }
  StepCounters steps() const { return prefill_->steps(); }
  size_t computing() const { return prefill_->computing() + prefill_->waiting(); }

 private:
  Result<Done> check_room(const PrefillRequest& request) const;
  PrefixNames names_of(const PrefillRequest& request, const Encoder& encoder) const;
  void send_stored(const std::shared_ptr<PrefillJob>& job, const std::vector<CodeCache::Chunk>& chunks);
  bool prepare(const std::shared_ptr<PrefillJob>& job);
  void ended(PrefillJob& job, const std::optional<Failure>& failure);

  const Args args_;
  const int64_t chunk_tokens_;
  std::atomic<bool> draining_{false};
  JobLedger ledger_;
  CodeCache cache_;
  Shipper shipper_;
  QueuedSpans queued_spans_;  // the compute thread's
  EncodeStage encode_;
  std::unique_ptr<PrefillStage> prefill_;
};

}  // namespace scd
