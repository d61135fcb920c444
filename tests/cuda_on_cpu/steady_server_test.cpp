// A decode server's answers after its start: what each further token costs beside its kernels.
#include "tests/cuda_on_cpu/calls.h"
#include "tests/pair/pair.h"

namespace scd::testing {
namespace {

class SteadyServerOnDevice : public PairTest {
 protected:
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
            .waits = after.waits - before.waits};
  }
};

TEST_F(SteadyServerOnDevice, AllocatesAndRecordsNothingAndWaitsOnceAToken) {
  start_decode([](DecodeConfig& config) {
    config.device = "cuda:0";
    config.limits.prefill_chunk_tokens = config.limits.max_batched_tokens = 32;  // so much is computed at the start
  });
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
}

}  // namespace
}  // namespace scd::testing
