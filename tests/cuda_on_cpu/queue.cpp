#include "tests/cuda_on_cpu/queue.h"

#include <vector>

#include "tests/cuda_on_cpu/device_memory.h"

namespace scd::cuda_on_cpu {
namespace {

struct Queues {
  std::mutex mutex;
  std::vector<std::weak_ptr<Queue>> all;
};

Queues& queues() {
  static auto* const made = new Queues;  // buffers of static storage are released late
  return *made;
}

}  // namespace

std::shared_ptr<Queue> Queue::make() {
  auto made = std::make_shared<Queue>();
  const std::scoped_lock lock(queues().mutex);
  std::erase_if(queues().all, [](const auto& queue) { return queue.expired(); });
  queues().all.push_back(made);
  return made;
}

uint64_t Queue::put(Work work) {
  const std::scoped_lock lock(mutex_);
  waiting_.push_back(std::move(work));
  return done_ + waiting_.size();
}

uint64_t Queue::put_in() const {
  const std::scoped_lock lock(mutex_);
  return done_ + waiting_.size();
}

// What is under way stays in the queue until it is done.
void Queue::run_next() {
  Work* next = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    if (waiting_.empty()) return;
    next = &waiting_.front();  // stays where it is when others are put in
  }
  cudaError_t error = cudaSuccess;
  {
    const DeviceWork now;
    error = (*next)();
  }
  if (error != cudaSuccess) error_ = error;
  const std::scoped_lock lock(mutex_);
  waiting_.pop_front();
  ++done_;
}

cudaError_t Queue::run(uint64_t count) {
  if (!done(count)) {  // what is done may be asked for by work of this queue
    const std::scoped_lock lock(running_);
    while (!done(count)) run_next();
  }
  return error_.exchange(cudaSuccess);
}

void Queue::run_one() {
  const std::unique_lock lock(running_, std::try_to_lock);
  if (lock.owns_lock()) run_next();
}

void run_all() {
  std::vector<std::shared_ptr<Queue>> all;
  {
    const std::scoped_lock lock(queues().mutex);
    for (const auto& queue : queues().all) all.push_back(queue.lock());
  }
  for (const auto& queue : all) {
    if (queue != nullptr) queue->run(queue->put_in());
  }
}

}  // namespace scd::cuda_on_cpu
