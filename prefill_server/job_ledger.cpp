#include "prefill_server/job_ledger.h"

namespace scd {

Result<Done> JobLedger::open(const std::shared_ptr<PrefillJob>& job) {
  std::shared_ptr<PrefillJob> earlier;
  {
    std::scoped_lock lock(mutex_);
    const auto found = jobs_.find(key_of(*job));
    if (found != jobs_.end()) earlier = found->second.lock();
    if (earlier != nullptr && earlier->request.generation >= job->request.generation) {
      return Failure{ErrorCode::kAlreadyExists, "request " + std::to_string(job->request.id) + " of generation " +
                                                    std::to_string(earlier->request.generation) + " is being served"};
    }
    if (found == jobs_.end() && jobs_.size() >= capacity_) {
      return Failure{ErrorCode::kResourceExhausted, std::to_string(jobs_.size()) +
                                                        " requests are being served or wait, as many as "
                                                        "limits.max_requests allows; try again or another server"};
    }
    jobs_[key_of(*job)] = job;
  }
  if (earlier != nullptr) earlier->fail({ErrorCode::kAborted, "a later generation of the request has begun"});
  return Done{};
}

void JobLedger::close(const PrefillJob& job) {
  {
    std::scoped_lock lock(mutex_);
    const auto found = jobs_.find(key_of(job));
    if (found == jobs_.end()) return;
    // A job in its destructor can no longer be locked; a later generation may have taken the place of this one.
    const std::shared_ptr<PrefillJob> there = found->second.lock();
    if (there != nullptr && there.get() != &job) return;
    jobs_.erase(found);
  }
  changed_.notify_all();
}

void JobLedger::count(const std::optional<Failure>& failure) {
  std::scoped_lock lock(mutex_);
  ++outcomes_[failure ? static_cast<size_t>(failure->code) : 0];
}

bool JobLedger::wait_idle(PrefillClock::time_point deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [this] { return jobs_.empty(); });
}

size_t JobLedger::fail_all(const Failure& failure) {
  std::vector<std::shared_ptr<PrefillJob>> live;
  {
    std::scoped_lock lock(mutex_);
    for (const auto& [key, job] : jobs_) {
      if (auto held = job.lock()) live.push_back(std::move(held));
    }
  }
  for (const auto& job : live) job->fail(failure);
  return live.size();
}

size_t JobLedger::live() const {
  std::scoped_lock lock(mutex_);
  return jobs_.size();
}

int64_t JobLedger::queued_tokens() const {
  // Jobs are let go of outside the lock: the last one to do so ends them.
  std::vector<std::shared_ptr<PrefillJob>> live;
  {
    std::scoped_lock lock(mutex_);
    for (const auto& [key, job] : jobs_) live.push_back(job.lock());
  }
  int64_t tokens = 0;
  for (const auto& job : live) {
    if (job != nullptr) tokens += job->plan.handover_tokens - job->plan.cached_tokens;
  }
  return tokens;
}

OutcomeCounts JobLedger::outcomes() const {
  std::scoped_lock lock(mutex_);
  return outcomes_;
}

}  // namespace scd
