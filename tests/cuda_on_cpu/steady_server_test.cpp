// A decode server's answers after its start: what each further token costs beside its kernels.
#include <grpcpp/client_context.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "tests/cuda_on_cpu/calls.h"
#include "tests/pair/pair.h"

namespace scd::testing {
namespace {

class SteadyServerOnDevice : public PairTest {
 protected:
  void start_on_device(const ChangeDecode& change = {}) {
    start_decode([&](DecodeConfig& config) {
      config.device = "cuda:0";
      config.model.precision = Precision::kFP32;  // no near-equal tokens, however many answers share a step
      config.limits.prefill_chunk_tokens = config.limits.max_batched_tokens = 32;  // so much is computed at the start
      if (change) change(config);
      config.limits.recorded_batch = 2;  // of three or more answers: launched
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
  greedy.set_max_tokens(14);
  auto drawn = greedy;
  drawn.set_temperature(1.0f);
  drawn.set_top_p(0.9f);
  drawn.set_seed(11);
  const std::vector<int32_t> ids = answer(drawn).ids;
  const auto ending =
      std::find_if(ids.begin() + 6, ids.end(), [&](int32_t id) { return id != ids[0] && id != ids[1]; });
  ASSERT_NE(ending, ids.end());
  auto biased = drawn;
  (*biased.mutable_logit_bias())[ids[3]] = -5.0f;
  auto stopped = drawn;
  stopped.add_stop_token_ids(*ending);
  auto stopped_late = stopped;
  stopped_late.set_min_tokens(11);
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

// Also where one is computed once more for nothing, for a token ended it or its client left, and where its pages are
// kept.
TEST_F(SteadyServerOnDevice, AnswersThatComeAndGoAreThoseGivenAlone) {
  start_on_device([](DecodeConfig& config) { config.prefix_cache.enabled = true; });
  constexpr int kRequests = 5;
  std::vector<v1::CompleteRequest> requests;
  std::vector<std::string> expected(kRequests), answers(kRequests);
  for (int i = 0; i < kRequests; ++i) {
    auto request = greedy_request(40 + 5 * i, static_cast<uint32_t>(i));
    request.set_max_tokens(static_cast<uint32_t>(8 + 6 * (i % 4)));
    const v1::CompleteResponse alone = complete(request);
    if (i % 2 == 1) request.add_stop_token_ids(alone.token_ids(6));
    if (i % 3 == 2) (*request.mutable_logit_bias())[alone.token_ids(3)] = -100.0f;
    requests.push_back(request);
    expected[static_cast<size_t>(i)] = complete(request).text();
  }
  const ServerCounters before = decode_server->counters();
  grpc::ClientContext context;
  auto long_one = greedy_request(12, 77);
  long_one.set_max_tokens(300);
  const auto reader = stub->CompleteStream(&context, long_one);
  v1::CompleteStreamResponse message;
  const auto read_some = [&] {
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(reader->Read(&message));
  };
  read_some();
  EXPECT_GT(decode_server->counters().answer_steps_ahead, before.answer_steps_ahead);
  std::vector<std::jthread> clients;
  for (size_t i = 0; i < kRequests; ++i) {
    clients.emplace_back([&, i] { answers[i] = complete(requests[i]).text(); });
  }
  read_some();
  context.TryCancel();
  reader->Finish();
  clients.clear();
  EXPECT_EQ(answers, expected);
  EXPECT_EQ(complete(requests.back()).text(), expected.back()) << "in pages that others had";
  EXPECT_TRUE(eventually([&] { return decode_server->counters().cancelled == before.cancelled + 1; }));
  EXPECT_TRUE(eventually([this] { return decode_server->counters().running == 0; }));
}

}  // namespace
}  // namespace scd::testing
