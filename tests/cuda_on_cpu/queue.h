// The work of a stream: as late as a GPU may do it, which is when somebody waits for it, and not before.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace scd::cuda_on_cpu {

using Work = std::function<cudaError_t()>;

class Queue {
 public:
  static std::shared_ptr<Queue> make();  // one that run_all() knows

  // Returns how much work was put in so far, with this.
  uint64_t put(Work work);
  uint64_t put_in() const;
  bool done(uint64_t count) const { return done_ >= count; }
  // Until so much is done. Returns an error of the work since it was asked for last.
  cudaError_t run(uint64_t count);
  // The next one, if there is one and no other thread is at it.
  void run_one();

 private:
  void run_next();

  mutable std::mutex mutex_;
  std::deque<Work> waiting_;
  std::atomic<uint64_t> done_ = 0;
  std::mutex running_;
  std::atomic<cudaError_t> error_ = cudaSuccess;
};

// All work of all queues.
void run_all();

}  // namespace scd::cuda_on_cpu
