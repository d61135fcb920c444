// Which jobs live, and how jobs ended.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "prefill_server/job.h"

namespace scd {

// Index 0: went well; else the ErrorCode.
using OutcomeCounts = std::array<uint64_t, 16>;

// Thread-safe.
class JobLedger {
 public:
  explicit JobLedger(size_t capacity) : capacity_(capacity) {}

  // RESOURCE_EXHAUSTED when full, ALREADY_EXISTS when the consumer has a live job of the same id and generation or a
  // later one. An earlier generation of the request ends with ABORTED.
  Result<Done> open(const std::shared_ptr<PrefillJob>& job);
  // Nothing more for a job that was never opened.
  void close(const PrefillJob& job);
  void count(const std::optional<Failure>& failure);

  // Whether no job lives, at the deadline at the latest.
  bool wait_idle(PrefillClock::time_point deadline);
  // Ends all live jobs; returns how many there were.
  size_t fail_all(const Failure& failure);

  size_t live() const;
  int64_t queued_tokens() const;  // of live jobs: their tokens without stored codes when they came
  size_t capacity() const { return capacity_; }
  OutcomeCounts outcomes() const;

 private:
  using Key = std::pair<std::string, uint64_t>;  // consumer's data plane and request id
  static Key key_of(const PrefillJob& job) { return {job.request.peer, job.request.id}; }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, std::weak_ptr<PrefillJob>> jobs_;
  OutcomeCounts outcomes_{};
};

}  // namespace scd
