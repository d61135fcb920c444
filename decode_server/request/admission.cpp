#include "decode_server/request/admission.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "decode_server/request/validation.h"
#include "decode_server/served_model.h"

namespace scd {

Admission::Admission(const Args& args)
    : args_(args), thread_([this] {
        pthread_setname_np(pthread_self(), "request");
        run();
      }) {}

void Admission::stop() {
  {
    std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

Result<Done> Admission::submit(std::shared_ptr<DecodeJob> job, v1::CompleteRequest request) {
  {
    std::scoped_lock lock(mutex_);
    if (stopping_)
      return Failure{ErrorCode::kUnavailable, "the server is shutting down; send the request to another one"};
    // A burst meets an idle server before the thread could admit any of it: free places count as well as the queue's.
    const LimitOptions& limits = args_.limits;
    if (running_ + waiting_count_ >= int64_t{limits.max_running} + limits.max_waiting) {
      ++refused_;
      return Failure{ErrorCode::kResourceExhausted,
                     std::to_string(running_) + " requests run and " + std::to_string(waiting_count_) +
                         " wait (limits.max_running, limits.max_waiting); try again later"};
    }
    ++waiting_count_;
    arrivals_.push_back({std::move(job), std::move(request)});
  }
  changed_.notify_one();
  return Done{};
}

void Admission::release() {
  {
    std::scoped_lock lock(mutex_);
    --running_;
    look_ = true;
  }
  changed_.notify_one();
}

void Admission::hold_back(std::optional<int32_t> priority) {
  {
    std::scoped_lock lock(mutex_);
    held_back_ = priority;
    look_ = true;
  }
  changed_.notify_one();
}

void Admission::wake() {
  {
    std::scoped_lock lock(mutex_);
    look_ = true;
  }
  changed_.notify_one();
}

int32_t Admission::waiting() const {
  std::scoped_lock lock(mutex_);
  return waiting_count_;
}

int32_t Admission::running() const {
  std::scoped_lock lock(mutex_);
  return running_;
}

uint64_t Admission::refused() const {
  std::scoped_lock lock(mutex_);
  return refused_;
}

void Admission::run() {
  while (true) {
    std::deque<Arrival> arrivals;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, next_deadline(), [this] { return stopping_ || look_ || !arrivals_.empty(); });
      if (stopping_) break;
      look_ = false;
      arrivals.swap(arrivals_);
    }
    for (Arrival& arrival : arrivals) enqueue(std::move(arrival));
    drop_ended();
    while (admit_first()) {
    }
  }
  waiting_.clear();
  std::deque<Arrival> unserved;
  std::scoped_lock lock(mutex_);
  unserved.swap(arrivals_);
  waiting_count_ = 0;
}

void Admission::enqueue(Arrival arrival) {
  CompletionRequest& checked = arrival.job->request;
  if (auto added = add_prompt(arrival.job->model->validation, arrival.request, checked); !added) {
    {
      std::scoped_lock lock(mutex_);
      --waiting_count_;
    }
    arrival.job->fail(added.failure());
    return;
  }
  const auto place = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const auto& waiting) { return waiting->request.priority < checked.priority; });
  waiting_.insert(place, std::move(arrival.job));
}

void Admission::drop_ended() {
  const auto now = ServingClock::now();
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    const auto at = next++;
    const bool cancelled = (*at)->cancelled();
    if (!cancelled && now < (*at)->deadline) continue;
    const std::shared_ptr<DecodeJob> job = std::move(*at);
    waiting_.erase(at);
    {
      std::scoped_lock lock(mutex_);
      --waiting_count_;
    }
    job->fail(cancelled ? Failure{ErrorCode::kCancelled, "the client cancelled the request"}
                        : Failure{ErrorCode::kDeadlineExceeded, "the request's deadline passed while it waited"});
  }
}

bool Admission::admit_first() {
  if (waiting_.empty()) return false;
  DecodeJob& job = *waiting_.front();
  {
    // Held, so that pages are either given before others are held back or not at all.
    std::scoped_lock lock(mutex_);
    if (running_ >= args_.limits.max_running) return false;
    if (held_back_ && job.request.priority <= *held_back_) return false;
    if (!give_pages(job)) return false;
    ++running_;
    --waiting_count_;
  }
  job.timeline.add(TransferPart::kQueue, job.received_at, ServingClock::now());
  args_.compute.admit(std::move(waiting_.front()));
  waiting_.pop_front();
  return true;
}

// Under mutex_.
bool Admission::give_pages(DecodeJob& job) {
  const CompletionRequest& request = job.request;
  const int64_t tokens = std::ssize(request.prompt);
  PageTable pages = args_.pages.make_table();
  PrefixCache::Found found;
  if (request.reads_prefix_cache) {
    // At least one token is computed: the first logits are its.
    found = args_.prefixes.find({.salt = request.cache_salt,
                                 .tokens = std::span(request.prompt).first(static_cast<size_t>(tokens - 1)),
                                 .origin = job.model->codecs.coarsest(request, tokens),
                                 .space = job.model->prefixes.id()},
                                pages);
  }
  if (!pages.reserve(tokens)) return false;
  // Those that run get their next pages first.
  if (args_.pages.pages_to_spare() < running_) return false;
  if (request.reads_prefix_cache) args_.prefixes.count(tokens - 1, found.tokens);
  job.pages = std::move(pages);
  job.held_tokens = found.tokens;
  job.held_origin = found.origin;
  return true;
}

ServingClock::time_point Admission::next_deadline() const {
  auto deadline = ServingClock::time_point::max();
  for (const auto& job : waiting_) deadline = std::min(deadline, job->deadline);
  return deadline;
}

}  // namespace scd
