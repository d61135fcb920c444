// What is counted beforehand against what a GPU's buffers hold once the steps have run.
#include "common/model/workspace.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "common/model/decode_step.h"
#include "common/model/make_model.h"
#include "tests/support/gpu.h"
#include "tests/unit/model/tiny_model.h"

namespace scd {
namespace {

constexpr int64_t kProductBytes = int64_t{40} << 20;  // what cuBLASLt is given, whatever the model

ModelConfig eight_billion() {
  ModelConfig config;
  config.hidden = 4096;
  config.intermediate = 14336;
  config.layers = 32;
  config.query_heads = 32;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.vocab = 128256;
  config.max_positions = 8192;
  return config;
}

TEST(Workspace, AnEightBillionModelsStepIsCountedByItsShapes) {
  const size_t bytes = workspace_bytes(eight_billion(), kernels::DType::kBF16, {.step_tokens = 8192});
  // [8192, 4096] twice in F32 and twice in BF16, a quarter more of the last; [8192, 6144] in F32; [8192, 4096] in BF16;
  // [8192, 3 x 14336] in BF16; 40 MiB.
  EXPECT_NEAR(static_cast<double>(bytes), 1.4348e9, 5e5);
}

TEST(Workspace, GrowsWithWhatIsAsked) {
  const auto bytes = [](const WorkspaceLimits& limits) {
    return workspace_bytes(eight_billion(), kernels::DType::kBF16, limits);
  };
  const size_t step = bytes({.step_tokens = 2048});
  EXPECT_GT(bytes({.step_tokens = 2048, .passes = 2}), step);
  EXPECT_GE(bytes({.step_tokens = 2048, .batch = 64}), step + 2 * 64 * 128256 * 4) << "logits of both kinds of steps";
  const size_t coded = bytes({.step_tokens = 2048, .coded_tokens = 2048});
  EXPECT_GE(coded, step + 4 * 2048 * 2048 * 2) << "four units' keys and values in BF16";
  EXPECT_GT(bytes({.step_tokens = 2048, .coded_tokens = 2048, .unit_layers = 4, .anchored = true}), coded);
}

class WorkspaceOnDevice : public ::testing::Test {
 protected:
  void SetUp() override { SCD_SKIP_WITHOUT_GPU(); }

  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("scd_workspace_test_" + std::to_string(getpid()));

  // What `work` leaves in the buffers of its thread and of what it returns stays within the limits, and is a good part
  // of what they allow.
  void expect_counted(const WorkspaceLimits& limits,
                      const std::function<std::shared_ptr<void>(const Model&, KvCache&)>& work) {
    make_model({.shape = "tiny", .dtype = "float32", .family = "llama"}, directory_);
    std::thread([&] {  // whose scratch is its own
      const Model model =
          Model::load({.directory = directory_, .precision = kernels::DType::kBF16, .device = kernels::Device::kGpu});
      KvCache cache(model.config().kv_shape(model.precision()), 256, kernels::Device::kGpu);
      const size_t held_before = kernels::gpu_held_bytes();
      const size_t free_before = kernels::gpu_memory().free_bytes;
      const std::shared_ptr<void> holder = work(model, cache);
      const size_t taken = kernels::gpu_held_bytes() - held_before;
      const size_t bound = workspace_bytes(model.config(), model.precision(), limits);
      EXPECT_LE(free_before - kernels::gpu_memory().free_bytes, bound);
      EXPECT_LE(taken, bound);
      EXPECT_GT(taken, kProductBytes);
      EXPECT_GE(2.5 * static_cast<double>(taken - kProductBytes), static_cast<double>(bound - kProductBytes));
    })
        .join();
    std::filesystem::remove_all(directory_);
  }
};

// Of families with and without biases and norms of queries.
TEST_F(WorkspaceOnDevice, WeightsOfEveryFamilyFillTheirArena) {
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
    for (const auto precision : {kernels::DType::kF32, kernels::DType::kBF16}) {
      make_model({.family = family}, directory_);
      const size_t held_before = kernels::gpu_held_bytes();
      {
        const Model model =
            Model::load({.directory = directory_, .precision = precision, .device = kernels::Device::kGpu});
        EXPECT_GE(kernels::gpu_held_bytes(), held_before + model.weight_bytes()) << family;
        EXPECT_LE(kernels::gpu_held_bytes(), held_before + model.weight_bytes() + 65536) << "but for gaps\n" << family;
      }
      EXPECT_EQ(kernels::gpu_held_bytes(), held_before) << family;
      std::filesystem::remove_all(directory_);
    }
  }
}

TEST_F(WorkspaceOnDevice, APromptsStepTakesNoMore) {
  constexpr int64_t kTokens = 512;
  expect_counted({.step_tokens = kTokens}, [](const Model& model, KvCache& cache) -> std::shared_ptr<void> {
    PageTable pages = cache.pool().make_table();
    std::move(pages.reserve(kTokens)).value_or_throw();
    const std::vector<TokenId> ids = testing::some_ids(kTokens);
    const SequenceChunk chunk{&pages, 0, ids};
    ForwardPass pass(model, cache, std::span(&chunk, 1));
    while (pass.next_layer() < model.config().layers) {
      pass.keep_attention_input(pass.next_layer() % 2 == 0);
      pass.run_layer();
    }
    return nullptr;
  });
}

TEST_F(WorkspaceOnDevice, SmallPassesBesideStepsComeNotToTakeAsMuch) {
  constexpr int64_t kTokens = 512, kSmall = 32;
  constexpr size_t kMost = 6;
  const WorkspaceLimits limits{
      .step_tokens = kTokens, .passes = 2, .further_passes = kMost, .further_rows = kMost * kSmall};
  expect_counted(limits, [](const Model& model, KvCache& cache) -> std::shared_ptr<void> {
    std::vector<PageTable> tables;
    for (size_t i = 0; i <= kMost; ++i) {
      tables.push_back(cache.pool().make_table());
      std::move(tables.back().reserve(i == 0 ? kTokens : kSmall)).value_or_throw();
    }
    const std::vector<TokenId> ids = testing::some_ids(kTokens);
    const auto begin = [&](size_t index) {
      const SequenceChunk chunk{&tables[index], 0, std::span(ids).first(index == 0 ? kTokens : kSmall)};
      auto pass = std::make_unique<ForwardPass>(model, cache, std::span(&chunk, 1));
      pass->run_layer();
      return pass;
    };
    for (size_t small = 1; small <= kMost; ++small) {
      std::vector<std::unique_ptr<ForwardPass>> passes;
      for (size_t index = small + 1; index-- > 0;) passes.push_back(begin(index));
    }
    return nullptr;
  });
}

TEST_F(WorkspaceOnDevice, StepsOfPromptsAndAnswersTakeNoMore) {
  constexpr int64_t kTokens = 512, kBatch = 64;
  const WorkspaceLimits limits{.step_tokens = kTokens, .batch = kBatch, .sequences = kBatch};
  expect_counted(limits, [](const Model& model, KvCache& cache) -> std::shared_ptr<void> {
    std::vector<PageTable> tables;
    for (int64_t i = 0; i < kBatch; ++i) {
      tables.push_back(cache.pool().make_table());
      std::move(tables.back().reserve(kTokens / kBatch + 3)).value_or_throw();
    }
    const std::vector<TokenId> ids = testing::some_ids(kTokens / kBatch);
    std::vector<SequenceChunk> prompts;
    for (const PageTable& table : tables) prompts.push_back({&table, 0, ids});
    forward_last_logits(model, cache, prompts);
    const auto step = std::make_shared<DecodeStep>(model, cache, int64_t{kBatch});
    for (int64_t position = kTokens / kBatch; position < kTokens / kBatch + 3; ++position) {
      std::vector<SequenceChunk> answers;
      for (const PageTable& table : tables) answers.push_back({&table, position, std::span(ids).first(1)});
      step->run(answers);
      kernels::synchronize(kernels::Device::kGpu);
    }
    return step;
  });
}

}  // namespace
}  // namespace scd
