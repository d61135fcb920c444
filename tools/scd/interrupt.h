// SIGINT and SIGTERM as a stop request, so that destructors run and nothing is left behind.
#pragma once

#include <atomic>
#include <stop_token>
#include <thread>

#include "common/rpc/daemon.h"

namespace scd {

// Construct before any other thread starts (see ShutdownSignal). A second signal ends the process at once.
class Interrupt {
 public:
  Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  ~Interrupt();

  std::stop_token token() const { return stop_.get_token(); }

 private:
  std::stop_source stop_;
  std::atomic<bool> over_{false};  // the owner is done: what comes now is no interrupt
  ShutdownSignal signal_;
  std::jthread watcher_;
};

}  // namespace scd
