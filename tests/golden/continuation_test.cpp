// Trained models continue their known texts.
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/model/json_file.h"
#include "common/tokenizer/tokenizer.h"
#include "tests/golden/golden_case.h"
#include "tests/support/test_data.h"

namespace scd {
namespace {

using testing::Sequence;
using testing::test_data;

constexpr double kDecidedMargin = 0.1;

TEST(TinyStories, ContinuesItsStoryInBothPrecisions) {
  const auto directory = test_data("models/tinystories_656K");
  if (!directory) GTEST_SKIP() << "no models/tinystories_656K in the test data";
  const std::string expected = ", a little girl named Lily lived in a small house with her mom, dad, and her dog, Spot";
  const auto tokenizer = Tokenizer::from_file(*directory / "tokenizer.json");
  const std::vector<TokenId> prompt{1, 80, 147, 201, 282, 57};
  for (const auto precision : {kernels::DType::kF32, kernels::DType::kBF16}) {
    const Model model = Model::load({.directory = *directory, .precision = precision});
    auto ids = Sequence(model, 128).greedy(prompt, 48);
    ids.insert(ids.begin(), prompt.begin() + 1, prompt.end());
    const std::string text = tokenizer.decode(ids, /*skip_special=*/true);
    EXPECT_TRUE(text.starts_with("Once upon a time" + expected)) << text;
  }
}

std::optional<std::filesystem::path> smollm2() {
  std::filesystem::path cache;
  if (const char* configured = std::getenv("SCD_CACHE")) {
    cache = configured;
  } else if (const char* home = std::getenv("HOME")) {
    cache = std::filesystem::path(home) / ".cache/scd";
  }
  const auto directory = cache / "models/SmolLM2-135M-Instruct";
  if (!std::filesystem::exists(directory / "config.json")) return std::nullopt;
  return directory;
}

class SmolLM2 : public ::testing::TestWithParam<kernels::DType> {};

// A BF16 engine may differ only from the first step on whose margin is below 0.1; FP32 not at all.
TEST_P(SmolLM2, ContinuesItsGoldenPrompts) {
  const auto directory = smollm2();
  const auto golden = test_data("golden/smollm2/case.json");
  if (!directory || !golden) {
    GTEST_SKIP() << "SmolLM2-135M-Instruct (made by tools/demo_model/fetch.py) or golden/smollm2 is not here";
  }
  const JsonFile cases(*golden);
  const Model model = Model::load({.directory = *directory, .precision = GetParam()});
  for (const auto& row : cases.root()["rows"]) {
    const auto prompt = row["prompt_ids"].get<std::vector<TokenId>>();
    const auto expected = row["greedy"].get<std::vector<TokenId>>();
    const auto margins = row["margins"].get<std::vector<double>>();
    const auto found =
        Sequence(model, static_cast<int64_t>(prompt.size() + expected.size())).greedy(prompt, expected.size());
    for (size_t step = 0; step < expected.size(); ++step) {
      if (GetParam() == kernels::DType::kBF16 && margins[step] < kDecidedMargin) break;
      ASSERT_EQ(found[step], expected[step]) << "step " << step << " of: " << row["prompt"].get<std::string>();
    }
  }
}

// The first step's ten most probable ids and their logits.
TEST(SmolLM2First, TopLogitsMatch) {
  const auto directory = smollm2();
  const auto golden = test_data("golden/smollm2/case.json");
  if (!directory || !golden) GTEST_SKIP() << "SmolLM2-135M-Instruct or golden/smollm2 is not here";
  const JsonFile cases(*golden);
  const Model model = Model::load({.directory = *directory, .precision = kernels::DType::kF32});
  for (const auto& row : cases.root()["rows"]) {
    const auto prompt = row["prompt_ids"].get<std::vector<TokenId>>();
    const auto logits = Sequence(model, static_cast<int64_t>(prompt.size())).run(prompt);
    const auto last = testing::row_of(logits, model.config().vocab, prompt.size() - 1);
    for (const auto& entry : row["first_top10"]) {
      EXPECT_NEAR(last[entry[0].get<size_t>()], entry[1].get<float>(), 2e-3f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, SmolLM2, ::testing::Values(kernels::DType::kF32, kernels::DType::kBF16),
                         [](const auto& param) { return param.param == kernels::DType::kF32 ? "fp32" : "bf16"; });

}  // namespace
}  // namespace scd
