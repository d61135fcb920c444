// One completion request on its way through the stages.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "common/kv/page_pool.h"
#include "decode_server/completion.h"
#include "decode_server/page_origin.h"
#include "decode_server/transfer_account.h"

namespace scd {

struct ServedModel;

// Shared (std::shared_ptr) by the RPC, which may cancel it, and by the stage that works on it; whichever lets go last
// ends it. Fields below the constructor are written by the stage that holds the job, which hands it on through a queue;
// cancelled and timeline alone are for any thread.
class DecodeJob {
 public:
  DecodeJob(uint64_t job_id, ServingClock::time_point received, std::shared_ptr<CompletionSink> sink)
      : id(job_id), received_at(received), sink_(std::move(sink)) {}
  DecodeJob(const DecodeJob&) = delete;
  DecodeJob& operator=(const DecodeJob&) = delete;
  // A job that nobody answered (shutting down) ends with UNAVAILABLE.
  ~DecodeJob() { fail({ErrorCode::kUnavailable, "the server is shutting down; send the request to another one"}); }

  const uint64_t id;
  const ServingClock::time_point received_at;
  ServingClock::time_point deadline = ServingClock::time_point::max();
  CompletionRequest request;
  std::shared_ptr<ServedModel> model;  // that answers; shared with other requests and the list of models
  PageTable pages;                     // covers the prompt once admitted
  // Keys and values of the first held_tokens, whole pages but not the whole prompt, were in the prefix cache.
  int64_t held_tokens = 0;
  PageOrigin held_origin;
  Timeline timeline;

  void cancel() { cancelled_.store(true, std::memory_order_release); }
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  CompletionSink& sink() { return *sink_; }
  // The last word; later ones are ignored.
  void end(CompletionEnd result) {
    if (!answered_.exchange(true, std::memory_order_acq_rel)) sink_->on_end(std::move(result));
  }
  void fail(const Failure& failure) {
    if (!answered_.exchange(true, std::memory_order_acq_rel)) sink_->on_failure(failure);
  }

 private:
  std::shared_ptr<CompletionSink> sink_;  // shared with the RPC it writes to
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> answered_{false};
};

}  // namespace scd
