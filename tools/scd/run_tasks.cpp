#include "tools/scd/run_tasks.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace scd {

void run_tasks(const TaskRun& run, const std::function<void(size_t index, size_t worker)>& task) {
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr failure;  // guarded by mutex
  const auto work = [&](size_t worker) {
    while (!run.stop.stop_requested() && !failed.load(std::memory_order_relaxed)) {
      const size_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= run.tasks) return;
      try {
        task(index, worker);
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!failure) failure = std::current_exception();
        failed.store(true, std::memory_order_relaxed);
      }
    }
  };
  const size_t count = std::min(run.workers, run.tasks);
  if (count <= 1) {
    work(0);
  } else {
    const int threads = std::max(1, omp_get_max_threads() / static_cast<int>(count));
    std::vector<std::jthread> workers;
    for (size_t worker = 0; worker < count; ++worker) {
      workers.emplace_back([&work, worker, threads] {
        omp_set_num_threads(threads);  // of this thread's own teams
        work(worker);
      });
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace scd
