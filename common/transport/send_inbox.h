// Where other threads leave sends and cancellations for a transport's thread. Never blocks; bounded by refusing sends.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <variant>
#include <vector>

#include "common/base/error.h"
#include "common/transport/transport.h"

namespace scd {

class SendInbox {
 public:
  struct Submission {
    SendJob job;
    SendReport::Clock::time_point queued_at;
  };
  struct Abandonment {
    std::string peer;
    LeaseKey key;
  };
  // In the order of the calls: an abandon ends the sends before it and not those after it.
  using Command = std::variant<Submission, Abandonment>;

  // capacity: sends accepted and not yet ended. wake: called after each command, from any thread.
  SendInbox(size_t capacity, std::function<void()> wake) : capacity_(capacity), wake_(std::move(wake)) {}

  Result<Done> submit(SendJob job);
  void abandon(const std::string& peer, LeaseKey key);
  void close();  // refuses from now on

  std::vector<Command> take();
  void ended() { pending_.fetch_sub(1, std::memory_order_relaxed); }  // one accepted send has ended
  size_t pending() const { return pending_.load(std::memory_order_relaxed); }

 private:
  const size_t capacity_;
  const std::function<void()> wake_;
  std::atomic<size_t> pending_{0};
  std::mutex mutex_;
  std::vector<Command> commands_;
  bool closed_ = false;
};

}  // namespace scd
