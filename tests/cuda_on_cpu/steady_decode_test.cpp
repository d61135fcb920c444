// Decode steps after their recording: what each costs beside its kernels.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "common/model/adapter.h"
#include "common/model/decode_step.h"
#include "common/model/make_model.h"
#include "kernels/sampled_rows.h"
#include "tests/cuda_on_cpu/calls.h"
#include "tests/unit/model/adapter_files.h"
#include "tests/unit/model/model_files.h"
#include "tests/unit/model/tiny_model.h"

namespace scd {
namespace {

class SteadyDecodeOnDevice : public ::testing::TestWithParam<kernels::DType> {
 protected:
  static constexpr int64_t kMaxBatch = 4;

  struct Answer {
    PageTable pages;
    std::vector<TokenId> tokens;
    const Adapter* adapter = nullptr;
  };

  SteadyDecodeOnDevice() {
    make_model({}, folder_.path());
    model_.emplace(
        Model::load({.directory = folder_.path(), .precision = GetParam(), .device = kernels::Device::kGpu}));
    cache_.emplace(model_->config().kv_shape(GetParam()), 100, kernels::Device::kGpu);
    step_.emplace(*model_, *cache_, kMaxBatch);
    sample(step_->record(kMaxBatch).logits);
  }

  static std::vector<TokenId> sample(const kernels::ConstMatrix& logits) {
    const auto rows = static_cast<size_t>(logits.rows);
    std::vector<TokenId> ids(rows);
    std::vector<kernels::SamplingOptions> options(rows, {.temperature = 1.0f, .top_p = 0.9f});
    options[0] = {};
    kernels::sample_rows(logits, options, std::vector<double>(rows, 0.5), ids);
    return ids;
  }

  // After its prompt.
  Answer begin(int64_t prompt_tokens, const Adapter* adapter = nullptr) {
    Answer answer{cache_->pool().make_table(), testing::some_ids(prompt_tokens), adapter};
    std::move(answer.pages.reserve(prompt_tokens)).value_or_throw();
    const SequenceChunk chunk{.pages = &answer.pages, .first_position = 0, .tokens = answer.tokens, .adapter = adapter};
    forward_last_logits(*model_, *cache_, std::span(&chunk, 1));
    answer.tokens.push_back(7);
    return answer;
  }

  // ahead: behind so many tokens that are not known yet.
  std::vector<SequenceChunk> chunks_of(std::span<Answer> answers, int64_t ahead = 0) {
    std::vector<SequenceChunk> batch;
    for (Answer& answer : answers) {
      const auto position = std::ssize(answer.tokens) - 1 + ahead;
      std::move(answer.pages.reserve(position + 1)).value_or_throw();
      batch.push_back({.pages = &answer.pages,
                       .first_position = position,
                       .tokens = std::span(answer.tokens).last(1),
                       .adapter = answer.adapter});
    }
    return batch;
  }

  kernels::Matrix step(std::span<Answer> answers) {
    const kernels::Matrix logits = step_->run(chunks_of(answers));
    if (changes_) change_one(logits);
    const std::vector<TokenId> ids = sample(logits);
    for (size_t i = 0; i < answers.size(); ++i) answers[i].tokens.push_back(ids[i]);
    return logits;
  }

  // Nothing but a wait for each step's tokens.
  void expect_steady(std::span<Answer> answers, int64_t steps) {
    const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
    for (int64_t i = 0; i < steps; ++i) step(answers);
    const cuda_on_cpu::Calls after = cuda_on_cpu::calls();
    EXPECT_EQ(after.device_allocations, before.device_allocations);
    EXPECT_EQ(after.pinned_allocations, before.pinned_allocations);
    EXPECT_EQ(after.graphs, before.graphs);
    EXPECT_EQ(after.waits - before.waits, steps);
  }

  static void change_one(const kernels::Matrix& logits) {
    const kernels::LogitChange change{.row = static_cast<int32_t>(logits.rows) - 1, .id = 3, .penalty = 2.0f};
    kernels::change_logits(logits, std::span(&change, 1));
  }

  // A step gives what a pass over all tokens gives.
  void expect_right(std::span<Answer> answers) {
    const kernels::ConstMatrix logits = step(answers);
    std::vector<float> found(static_cast<size_t>(logits.rows * logits.columns));
    kernels::copy(logits, kernels::matrix(found.data(), logits.rows, logits.columns));
    const auto vocab = static_cast<size_t>(logits.columns);
    for (size_t i = 0; i < answers.size(); ++i) {
      const auto tokens = std::span(answers[i].tokens).first(answers[i].tokens.size() - 1);
      PageTable pages = cache_->pool().make_table();
      std::move(pages.reserve(std::ssize(tokens))).value_or_throw();
      const SequenceChunk chunk{.pages = &pages, .first_position = 0, .tokens = tokens, .adapter = answers[i].adapter};
      const auto expected = forward_last_logits(*model_, *cache_, std::span(&chunk, 1));
      const float tolerance = GetParam() == kernels::DType::kF32 ? 1e-4f : 5e-2f;
      EXPECT_LE(testing::largest_difference(expected, std::span(found).subspan(i * vocab, vocab)), tolerance) << i;
    }
  }

  testing::TemporaryFolder folder_;
  std::optional<Model> model_;
  std::optional<KvCache> cache_;
  std::optional<DecodeStep> step_;
  bool changes_ = false;
};

TEST_P(SteadyDecodeOnDevice, AllocatesAndRecordsNothingAndWaitsOnceAToken) {
  std::vector<Answer> answers;
  answers.push_back(begin(10));
  expect_steady(answers, 50);
  expect_right(answers);
}

// Each is queued before the tokens of the one before are known.
TEST_P(SteadyDecodeOnDevice, StepsReadTokensWhereTheyWereSampled) {
  constexpr int64_t kSteps = 40;
  const auto begin_some = [this] {
    std::vector<Answer> answers;
    for (const int64_t prompt_tokens : {9, 31}) answers.push_back(begin(prompt_tokens));
    return answers;
  };
  std::vector<Answer> expected = begin_some(), answers = begin_some();
  for (int64_t i = 0; i < kSteps; ++i) step(expected);

  std::array<kernels::SampledRows, 2> sampled;
  const std::vector<kernels::SamplingOptions> options = {{}, {.temperature = 1.0f, .top_p = 0.9f}};
  const std::vector<double> uniforms(2, 0.5);
  const auto queue = [&](int64_t i, const kernels::SampledRows* before) {
    const auto batch = chunks_of(answers, before == nullptr ? 0 : 1);
    sampled[static_cast<size_t>(i % 2)].queue(step_->run(batch, before), options, uniforms);
  };
  const auto take = [&](int64_t i) {
    const auto ids = sampled[static_cast<size_t>(i % 2)].ids();
    for (size_t row = 0; row < answers.size(); ++row) answers[row].tokens.push_back(ids[row]);
  };
  queue(0, nullptr);
  queue(1, &sampled[0]);
  take(0);
  const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
  for (int64_t i = 2; i < kSteps; ++i) {
    queue(i, &sampled[static_cast<size_t>((i - 1) % 2)]);
    take(i - 1);
  }
  const cuda_on_cpu::Calls after = cuda_on_cpu::calls();
  EXPECT_EQ(after.device_allocations, before.device_allocations);
  EXPECT_EQ(after.pinned_allocations, before.pinned_allocations);
  EXPECT_EQ(after.waits - before.waits, kSteps - 2);
  EXPECT_EQ(after.drained, before.drained) << "the GPU had nothing to do until a token was known";
  take(kSteps - 1);
  for (size_t row = 0; row < answers.size(); ++row) EXPECT_EQ(answers[row].tokens, expected[row].tokens) << row;
}

TEST_P(SteadyDecodeOnDevice, WaitsOnceATokenWhereLogitsAreChanged) {
  changes_ = true;
  std::vector<Answer> answers;
  answers.push_back(begin(10));
  step(answers);
  expect_steady(answers, 10);
}

// A recording serves whichever adapters come later.
TEST_P(SteadyDecodeOnDevice, RecordsAStepWithAdaptersOnce) {
  for (const uint32_t seed : {1, 2}) {
    testing::write_adapter(folder_.path(), folder_.path() / ("adapter" + std::to_string(seed)), seed);
  }
  const Adapter adapter(*model_, folder_.path() / "adapter1"), other(*model_, folder_.path() / "adapter2");
  std::vector<Answer> answers;
  answers.push_back(begin(10, &adapter));
  answers.push_back(begin(12));
  const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
  step(answers);
  EXPECT_EQ(cuda_on_cpu::calls().graphs, before.graphs + 1);
  expect_steady(answers, 10);
  expect_right(answers);
  answers[0] = begin(5);
  answers[1] = begin(20, &other);
  expect_steady(answers, 5);
  expect_right(answers);
  for (Answer& answer : answers) answer = begin(9, &adapter);
  expect_right(answers);
}

TEST_P(SteadyDecodeOnDevice, RecordsStepsWithAdaptersBeforehandWhereItIsTold) {
  testing::write_adapter(folder_.path(), folder_.path() / "adapter", 1);
  const Adapter adapter(*model_, folder_.path() / "adapter");
  step_.emplace(*model_, *cache_, kMaxBatch);
  const DecodeStep::Warmth warmth = step_->record(kMaxBatch, /*adapters=*/true);
  EXPECT_EQ(warmth.recorded, kMaxBatch);
  EXPECT_EQ(warmth.recorded_with_adapters, kMaxBatch);
  std::vector<Answer> answers;
  for (int64_t count = 1; count <= kMaxBatch; ++count) {
    answers.push_back(begin(5 + count, count == 2 ? nullptr : &adapter));
    expect_steady(answers, 2);
    expect_right(answers);
  }
}

TEST_P(SteadyDecodeOnDevice, DoesSoForSeveralOfDifferentLengthsWhileSomeComeAndGo) {
  std::vector<Answer> answers;
  for (const int64_t prompt_tokens : {37, 15, 1}) answers.push_back(begin(prompt_tokens));
  expect_steady(answers, 35);
  expect_right(answers);
  answers.erase(answers.begin());
  answers.push_back(begin(50));
  answers.push_back(begin(3));
  expect_steady(answers, 15);
  expect_right(answers);
}

TEST_P(SteadyDecodeOnDevice, LargerStepsThanWereRecordedRunWithout) {
  step_.emplace(*model_, *cache_, kMaxBatch);
  EXPECT_EQ(step_->record(2).recorded, 2);
  std::vector<Answer> answers;
  for (const int64_t prompt_tokens : {5, 20, 7}) answers.push_back(begin(prompt_tokens));
  expect_steady(answers, 20);
  expect_right(answers);
  answers.pop_back();
  expect_steady(answers, 5);
}

TEST_P(SteadyDecodeOnDevice, RecordsWhatTheMemoryHolds) {
  step_.emplace(*model_, *cache_, kMaxBatch);
  cuda_on_cpu::leave_room_for_graphs(2);
  EXPECT_EQ(step_->record(kMaxBatch).recorded, 2);
  std::vector<Answer> answers;
  for (const int64_t prompt_tokens : {5, 20, 7}) answers.push_back(begin(prompt_tokens));
  expect_steady(answers, 20);
  expect_right(answers);
  cuda_on_cpu::leave_room_for_graphs(100);
}

TEST_P(SteadyDecodeOnDevice, WeightsLieInOnePiece) {
  make_model({.dtype = GetParam() == kernels::DType::kF32 ? "float32" : "bfloat16"}, folder_.path());
  const size_t held = kernels::gpu_held_bytes();
  const cuda_on_cpu::Calls before = cuda_on_cpu::calls();
  const Model model =
      Model::load({.directory = folder_.path(), .precision = GetParam(), .device = kernels::Device::kGpu});
  EXPECT_EQ(cuda_on_cpu::calls().device_allocations, before.device_allocations + 1);
  EXPECT_GE(kernels::gpu_held_bytes(), held + model.weight_bytes());
}

INSTANTIATE_TEST_SUITE_P(Precisions, SteadyDecodeOnDevice,
                         ::testing::Values(kernels::DType::kF32, kernels::DType::kBF16));

}  // namespace
}  // namespace scd
