#include "decode_server/generate/next_tokens.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/device.h"
#include "tests/support/gpu.h"

namespace scd {
namespace {

constexpr int64_t kVocab = 500;

std::vector<SamplingRequest> requests() {
  std::vector<SamplingRequest> all(6);
  all[1].options = {.temperature = 0.8f, .top_p = 0.9f};
  all[1].seed = 3;
  all[2].options = {.temperature = 1.0f};
  all[2].repetition_penalty = 1.3f;
  all[2].presence_penalty = 0.5f;
  all[3].logprobs = 2;
  all[4].logit_bias = {{7, 50.0f}};
  all[4].min_tokens = 2;
  all[5].options = {.temperature = 1.0f, .top_k = 40};
  all[5].logprobs = 0;
  return all;
}

// Of a device, by step and row; the third row's request ends after the second step.
std::vector<std::vector<SampledToken>> sampled_on(kernels::Device device) {
  std::mt19937 random(11);
  std::normal_distribution<float> values(0.0f, 3.0f);
  const std::vector<TokenId> prompt{1, 2, 3, 2};
  std::vector<Sampler> samplers;
  for (const SamplingRequest& request : requests()) samplers.emplace_back(request, prompt, std::vector<TokenId>{7, 9});
  std::vector<Sampler*> rows;
  for (Sampler& sampler : samplers) rows.push_back(&sampler);
  NextTokens next;
  std::vector<std::vector<SampledToken>> steps;
  for (int step = 0; step < 5; ++step) {
    if (step == 2) rows[2] = nullptr;
    std::vector<float> logits(rows.size() * kVocab);
    for (float& logit : logits) logit = values(random);
    const kernels::DeviceBuffer there = kernels::buffer_of(std::as_bytes(std::span(logits)), device);
    const auto tokens = next.of(rows, {there.data(), std::ssize(rows), kVocab, kVocab, kernels::DType::kF32, device});
    steps.emplace_back(tokens.begin(), tokens.end());
  }
  return steps;
}

TEST(NextTokens, GoOnWithEachRequestsOwnOptions) {
  const auto steps = sampled_on(kernels::Device::kCpu);
  EXPECT_NE(steps[0][4].id, 7) << "which ends it, before min_tokens";
  EXPECT_NE(steps[1][4].id, 7);
  EXPECT_EQ(steps[2][4].id, 7);
  EXPECT_EQ(steps[2][2].id, 0) << "nobody's row";
  EXPECT_EQ(steps[0][3].most_probable.size(), 2U);
  EXPECT_EQ(steps[0][3].most_probable[0].id, steps[0][3].id);
}

TEST(NextTokens, AGpuGivesWhatTheCpuDoes) {
  SCD_SKIP_WITHOUT_GPU();
  const auto here = sampled_on(kernels::Device::kCpu), there = sampled_on(kernels::Device::kGpu);
  for (size_t step = 0; step < here.size(); ++step) {
    for (size_t row = 0; row < here[step].size(); ++row) {
      EXPECT_EQ(there[step][row].id, here[step][row].id) << step << " " << row;
      EXPECT_EQ(there[step][row].logprob, here[step][row].logprob) << step << " " << row;
      EXPECT_EQ(there[step][row].most_probable.size(), here[step][row].most_probable.size()) << step << " " << row;
    }
  }
}

}  // namespace
}  // namespace scd
