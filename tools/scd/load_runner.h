// Puts a load on a decode server: requests go out when they are due, whatever became of the earlier ones, and each
// token's time is taken where it arrives. A waiting request costs memory, not a thread.
#pragma once

#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "tools/scd/client.h"
#include "tools/scd/load_statistics.h"
#include "tools/scd/load_workload.h"

namespace scd {

struct LoadRun {
  std::vector<LoadRecord> records;  // in the requests' order
  double seconds = 0;               // from the first arrival to the last end
};

struct LoadProgress {
  size_t done = 0;
  size_t of = 0;
  size_t under_way = 0;
  size_t failed = 0;
};

class LoadRunner {
 public:
  explicit LoadRunner(const ClientOptions& client);

  // arrivals: seconds since the start, of each request; empty: closed loop of `concurrency`. `progress` is told on the
  // calling thread a few times a second. Throws Error kCancelled after `stop`, when every call has ended.
  struct Args {
    std::span<const v1::CompleteRequest> requests;
    std::span<const double> arrivals;
    int32_t concurrency = 0;
    std::stop_token stop;
    std::function<void(const LoadProgress&)> progress;
  };
  LoadRun run(const Args& args);

  // What the server's model takes.
  v1::ModelCard model();

 private:
  const ClientOptions client_;
  const std::unique_ptr<v1::CompletionService::Stub> stub_;
};

}  // namespace scd
