// Both servers in this process: data over a loopback network, control over gRPC on ports the kernel chose, tiny random
// models made on the spot.
#pragma once

#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/transport/loopback.h"
#include "decode_server/config.h"
#include "decode_server/server.h"
#include "prefill_server/config.h"
#include "prefill_server/server.h"
#include "scd/v1/completion.grpc.pb.h"

// On a GPU a row's last bits depend on how many rows a product has, which decides between near-equal tokens of random
// models.
#define SCD_SKIP_ON_GPU()                                                                 \
  do {                                                                                    \
    if (std::getenv("SCD_TEST_DEVICE") != nullptr) {                                      \
      GTEST_SKIP() << "compares texts bit by bit across batches: SCD_TEST_DEVICE is set"; \
    }                                                                                     \
  } while (false)

namespace scd::testing {

// A stream as a client sees it, put together.
struct StreamedCompletion {
  v1::PromptInfo prompt;
  v1::CompleteResponse joined;  // text, ids, log-probabilities and finish
  int messages = 0;
  grpc::Status status;
};

class PairTest : public ::testing::Test {
 protected:
  using ChangePrefill = std::function<void(PrefillConfig&)>;
  using ChangeDecode = std::function<void(DecodeConfig&)>;

  PairTest();
  ~PairTest() override;

  // One model for both, made on first use.
  std::filesystem::path base_model();
  // The base with other weights: a fine-tune of it.
  std::filesystem::path tuned_model();
  std::filesystem::path make(const std::string& name, const std::string& shape, uint64_t seed, double perturb);
  std::filesystem::path root() const { return root_; }

  PrefillConfig prefill_config();
  DecodeConfig decode_config();
  void start_prefill(const ChangePrefill& change = {});
  // Asks the prefill servers started so far, unless `change` says otherwise.
  void start_decode(const ChangeDecode& change = {});
  void start(const ChangeDecode& change = {});

  // A guard against hanging, long enough for sanitizers on a machine that others keep busy: what is to be soon is
  // measured.
  static constexpr std::chrono::seconds kPatience{120};

  grpc::Status complete(const v1::CompleteRequest& request, v1::CompleteResponse& response,
                        std::chrono::milliseconds timeout = kPatience);
  // Fails the test unless the status is OK.
  v1::CompleteResponse complete(const v1::CompleteRequest& request);
  // The same request, computed by the consumer alone.
  v1::CompleteResponse complete_alone(v1::CompleteRequest request);
  StreamedCompletion stream(const v1::CompleteRequest& request);

  // False when no transfer holds staging slots within kPatience.
  bool wait_for_lease();
  // False when the condition does not come true within kPatience.
  static bool eventually(const std::function<bool()>& condition);
  // Neither side holds anything for any request.
  bool idle() const;
  // How long it took from now until then; fails the test after 10 s.
  std::chrono::steady_clock::duration time_until_idle() const;
  // Idle within two seconds, before timers could tidy up; says what is still held.
  void expect_idle();

  LoopbackNetwork network;
  std::vector<std::unique_ptr<PrefillServer>> prefill_servers;
  std::unique_ptr<DecodeServer> decode_server;
  std::unique_ptr<v1::CompletionService::Stub> stub;

 private:
  std::filesystem::path root_;
};

// A prompt of `tokens` ids, different for different seeds; greedy, 12 tokens.
v1::CompleteRequest greedy_request(int tokens, uint32_t seed = 1);

}  // namespace scd::testing
