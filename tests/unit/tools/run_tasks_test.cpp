#include "tools/scd/run_tasks.h"

#include <gmock/gmock.h>

#include <atomic>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace scd {
namespace {

TEST(RunTasks, EveryTaskRunsOnceAndAWorkerIsOneThread) {
  for (const size_t workers : {size_t{1}, size_t{3}, size_t{20}}) {
    std::vector<std::atomic<int>> runs(10);
    std::vector<std::set<std::thread::id>> threads(workers);
    run_tasks({.tasks = runs.size(), .workers = workers}, [&](size_t index, size_t worker) {
      runs[index].fetch_add(1, std::memory_order_relaxed);
      threads[worker].insert(std::this_thread::get_id());
    });
    for (const auto& count : runs) EXPECT_EQ(count.load(std::memory_order_relaxed), 1);
    for (const auto& used : threads) EXPECT_LE(used.size(), 1U);
  }
}

TEST(RunTasks, NoTasksAreFine) {
  run_tasks({.tasks = 0, .workers = 4}, [](size_t, size_t) { FAIL(); });
}

TEST(RunTasks, AFailureIsThrownAndNoOtherTaskBegins) {
  for (const size_t workers : {size_t{1}, size_t{2}}) {
    std::atomic<size_t> begun{0};
    EXPECT_THROW(run_tasks({.tasks = 100, .workers = workers},
                           [&](size_t, size_t) {
                             begun.fetch_add(1, std::memory_order_relaxed);
                             throw std::runtime_error("no");
                           }),
                 std::runtime_error);
    EXPECT_LE(begun.load(std::memory_order_relaxed), workers);
  }
}

TEST(RunTasks, AStopEndsItAfterTheTasksThatWereBegun) {
  for (const size_t workers : {size_t{1}, size_t{2}}) {
    std::stop_source source;
    std::atomic<size_t> done{0};
    run_tasks({.tasks = 100, .workers = workers, .stop = source.get_token()}, [&](size_t, size_t) {
      source.request_stop();
      done.fetch_add(1, std::memory_order_relaxed);
    });
    EXPECT_GE(done.load(std::memory_order_relaxed), 1U);
    EXPECT_LE(done.load(std::memory_order_relaxed), workers);
  }
}

}  // namespace
}  // namespace scd
