// The queue before the server: tokenises, waits for room, takes up what the prefix cache has of the prompt and reserves
// the pages of the rest; those of the completion come as it grows. Higher priority first, then order of arrival; a
// request that does not fit yet is not overtaken by smaller ones.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "common/kv/page_pool.h"
#include "decode_server/config.h"
#include "decode_server/job.h"
#include "decode_server/prefix_cache.h"
#include "decode_server/stages.h"
#include "scd/v1/completion.pb.h"

namespace scd {

class Admission : public AdmissionStage {
 public:
  struct Args {
    const LimitOptions& limits;
    PagePool& pages;
    PrefixCache& prefixes;
    ComputeStage& compute;
  };
  explicit Admission(const Args& args);
  ~Admission() override { stop(); }

  // Waiting jobs end with UNAVAILABLE soon, nothing is admitted any more. Any thread.
  void stop();

  // job.model is set and job.request checked but for its prompt, which is still in `request`. RESOURCE_EXHAUSTED when
  // max_running and max_waiting requests are here already. Never blocks.
  Result<Done> submit(std::shared_ptr<DecodeJob> job, v1::CompleteRequest request);
  void release() override;
  void hold_back(std::optional<int32_t> priority) override;
  // A job was cancelled: look soon.
  void wake();

  int32_t waiting() const;
  int32_t running() const;
  uint64_t refused() const;

 private:
  struct Arrival {
    std::shared_ptr<DecodeJob> job;  // shared as DecodeJob says
    v1::CompleteRequest request;
  };
  using Jobs = std::list<std::shared_ptr<DecodeJob>>;

  void run();
  void enqueue(Arrival arrival);
  void drop_ended();
  bool admit_first();
  bool give_pages(DecodeJob& job);
  ServingClock::time_point next_deadline() const;

  const Args args_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Arrival> arrivals_;  // under mutex_, as all below but waiting_
  int32_t running_ = 0;
  int32_t waiting_count_ = 0;  // arrivals and waiting jobs
  uint64_t refused_ = 0;
  std::optional<int32_t> held_back_;  // at and below this priority
  bool look_ = false;
  bool stopping_ = false;
  Jobs waiting_;  // of the thread alone, in the order of service
  std::jthread thread_;
};

}  // namespace scd
