// A prefill server of a tiny model, and a decode server's end of what it does.
#pragma once

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/model/make_model.h"
#include "prefill_server/server.h"
#include "tests/unit/prefill_server/consumer.h"

namespace scd::testing {

inline std::filesystem::path tiny_model() {
  return std::filesystem::temp_directory_path() / ("scd_prefill_test_" + std::to_string(getpid()));
}

inline std::vector<int32_t> prompt(int32_t tokens, int32_t salt = 0) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < tokens; ++i) ids.push_back((i * 7 + salt) % 320);
  return ids;
}

class PrefillServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { make_model({.shape = "tiny", .dtype = "float32", .family = "llama"}, tiny_model()); }
  static void TearDownTestSuite() { std::filesystem::remove_all(tiny_model()); }

  // The configuration can be changed before.
  void serve() { serve(make_loopback_transport(testing::loopback_options(), network_)); }
  void serve(std::unique_ptr<Transport> transport) {
    server_ = std::make_unique<PrefillServer>(config_, std::move(transport));
    consumer_ = std::make_unique<Consumer>(server_->address(), network_);
  }
  PrefillServerTest() {
    config_.model.directory = tiny_model();
    config_.model.precision = Precision::kFP32;
    config_.grpc.listen = "127.0.0.1:0";
    config_.kv_cache.pages = 32;
    config_.codec.chunk_tokens = 32;
    config_.limits.batch_tokens = 64;
    config_.code_cache.max_uncached_tail_tokens = 16;
  }

  bool becomes_idle(std::chrono::milliseconds within) const {
    const auto deadline = std::chrono::steady_clock::now() + within;
    while (std::chrono::steady_clock::now() < deadline) {
      const PrefillCounters counters = server_->counters();
      if (counters.live_requests == 0 && counters.pages_in_use == 0 && counters.computing == 0) return true;
      std::this_thread::yield();
    }
    return false;
  }
  uint64_t ended_with(ErrorCode code) const { return server_->counters().requests[static_cast<size_t>(code)]; }

  LoopbackNetwork network_;
  PrefillConfig config_;
  std::unique_ptr<PrefillServer> server_;
  std::unique_ptr<Consumer> consumer_;
};

}  // namespace scd::testing
