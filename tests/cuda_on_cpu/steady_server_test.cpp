// A decode server's answers after its start: what each further token costs beside its kernels.
#include <grpcpp/client_context.h>

#include <thread>

#include "tests/cuda_on_cpu/calls.h"
#include "tests/pair/pair.h"

namespace scd::testing {
namespace {

class SteadyServerOnDevice : public PairTest {
 protected:
  void start_on_device() {
    start_decode([](DecodeConfig& config) {
      config.device = "cuda:0";
      config.model.precision = Precision::kFP32;  // no near-equal tokens, however many answers share a step
      config.limits.prefill_chunk_tokens = config.limits.max_batched_tokens = 32;  // so much is computed at the start
      config.limits.recorded_batch = 2;                                            // of three or more answers: launched
    });
  }

  cuda_on_cpu::Calls calls_of(v1::CompleteRequest request, int tokens) {
    request.set_max_tokens(static_cast<uint32_t>(tokens));
    request.set_min_tokens(static_cast<uint32_t>(tokens));
    const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
    EXPECT_EQ(complete(request).token_ids_size(), tokens);
    expect_idle();
    const cuda_on_cpu::Calls after = cuda_on_cpu::calls();
    return {.device_allocations = after.device_allocations - before.device_allocations,
            .pinned_allocations = after.pinned_allocations - before.pinned_allocations,
            .graphs = after.graphs - before.graphs,
            .waits = after.waits - before.waits,
            .drained = after.drained - before.drained};
  }

  struct Answered {
    std::vector<int32_t> ids;
    v1::FinishReason reason;
    uint64_t steps_ahead;
    bool operator==(const Answered&) const = default;
  };
  Answered answer(const v1::CompleteRequest& request) {
    const uint64_t before = decode_server->counters().answer_steps_ahead;
    const v1::CompleteResponse response = complete(request);
    return {{response.token_ids().begin(), response.token_ids().end()},
            response.finish().reason(),
            decode_server->counters().answer_steps_ahead - before};
  }
};

TEST_F(SteadyServerOnDevice, AllocatesAndRecordsNothingAndNeverIdlesUntilATokenIsKnown) {
  start_on_device();
  auto request = greedy_request(20);
  request.set_ignore_eos(false);  // its token is left out until min_tokens
  calls_of(request, 1);
  const auto few = calls_of(request, 10), many = calls_of(request, 40);
  for (const auto& calls : {few, many}) {
    EXPECT_EQ(calls.device_allocations, 0);
    EXPECT_EQ(calls.pinned_allocations, 0);
    EXPECT_EQ(calls.graphs, 0);
  }
  EXPECT_EQ(many.waits - few.waits, 30);
  EXPECT_EQ(many.drained, few.drained);
}

// Log probabilities keep a step waiting until the host has seen the logits of the one before.
TEST_F(SteadyServerOnDevice, StepsAheadGiveTheTokensOfStepsThatWait) {
  start_on_device();
  auto greedy = greedy_request(20);
  greedy.set_max_tokens(20);
  auto drawn = greedy;
  drawn.set_temperature(1.0f);
  drawn.set_top_p(0.9f);
  drawn.set_seed(11);
  const std::vector<int32_t> ids = answer(drawn).ids;
  auto biased = drawn;
  (*biased.mutable_logit_bias())[ids[3]] = -5.0f;
  auto stopped = drawn;
  stopped.add_stop_token_ids(ids[8]);
  auto stopped_late = stopped;
  stopped_late.set_min_tokens(15);
  for (const auto& request : {greedy, drawn, biased, stopped, stopped_late}) {
    const Answered ahead = answer(request);
    auto seen = request;
    seen.set_logprobs(1);
    const Answered waiting = answer(seen);
    EXPECT_EQ(ahead.ids, waiting.ids);
    EXPECT_EQ(ahead.reason, waiting.reason);
    EXPECT_EQ(waiting.steps_ahead, 0U);
    EXPECT_GE(ahead.steps_ahead + 3, ahead.ids.size()) << "all but the first ones, and one behind min_tokens";
  }
  auto penalised = drawn;
  penalised.set_presence_penalty(0.5f);
  EXPECT_EQ(answer(penalised).steps_ahead, 0U);
  expect_idle();
}

TEST_F(SteadyServerOnDevice, AnswersThatComeAndGoAreThoseGivenAlone) {
  start_on_device();
  constexpr int kRequests = 6;
  const auto request_of = [](int i) {
    auto request = greedy_request(10 + 5 * i, static_cast<uint32_t>(i));
    request.set_max_tokens(static_cast<uint32_t>(7 + 11 * (i % 4)));
    return request;
  };
  std::vector<std::string> expected(kRequests), answers(kRequests);
  for (int i = 0; i < kRequests; ++i) expected[static_cast<size_t>(i)] = complete(request_of(i)).text();
  std::vector<std::jthread> clients;
  for (int i = 0; i < kRequests; ++i) {
    clients.emplace_back([&, i] { answers[static_cast<size_t>(i)] = complete(request_of(i)).text(); });
  }
  // Somebody leaves in between, whose step is under way.
  grpc::ClientContext context;
  auto long_one = greedy_request(12, 77);
  long_one.set_max_tokens(200);
  const auto reader = stub->CompleteStream(&context, long_one);
  v1::CompleteStreamResponse message;
  for (int i = 0; i < 20 && reader->Read(&message); ++i) {
  }
  context.TryCancel();
  reader->Finish();
  clients.clear();
  EXPECT_EQ(answers, expected);
  expect_idle();
}

}  // namespace
}  // namespace scd::testing
