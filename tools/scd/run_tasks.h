// Independent tasks, several at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <stop_token>

namespace scd {

struct TaskRun {
  size_t tasks = 0;
  size_t workers = 1;         // threads; 1: the calling one
  std::stop_token stop = {};  // no task is begun after a request
};

// task(index, worker) once for every index in [0, tasks), in their order by whichever of the workers is free; a worker
// does one at a time, so that what belongs to it needs no lock. Kernels of a worker use its share of OpenMP's threads,
// one at least. Returns when all are done; throws what a task threw first, and begins no other then.
void run_tasks(const TaskRun& run, const std::function<void(size_t index, size_t worker)>& task);

}  // namespace scd
