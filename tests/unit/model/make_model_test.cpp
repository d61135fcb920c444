#include "common/model/make_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/base/half.h"
#include "common/model/forward.h"
#include "common/model/model.h"
#include "kernels/device.h"
#include "tests/support/gpu.h"
#include "tests/unit/model/model_files.h"
#include "tests/unit/model/tiny_model.h"

namespace scd {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::read_text;
using testing::TemporaryFolder;

std::string weights_of(const MakeModelOptions& options) {
  TemporaryFolder folder;
  make_model(options, folder.path());
  return read_text(folder.path() / "model.safetensors");
}

TEST(MakeModel, SameSeedSameBytesOtherSeedOthers) {
  EXPECT_EQ(weights_of({.seed = 3}), weights_of({.seed = 3}));
  EXPECT_NE(weights_of({.seed = 3}), weights_of({.seed = 4}));
}

TEST(MakeModel, EveryFamilyAndDtypeLoadsWithSaneLogits) {
  for (const char* family : {"llama", "mistral", "qwen2", "qwen3"}) {
    for (const char* dtype : {"bfloat16", "float16", "float32"}) {
      TemporaryFolder folder;
      make_model({.dtype = dtype, .family = family}, folder.path());
      const Model model = Model::load({.directory = folder.path(), .precision = kernels::DType::kF32});
      EXPECT_EQ(model.config().family, family);
      const auto logits = testing::logits_of(model, testing::some_ids(16));
      double squares = 0;
      for (const float logit : logits) squares += double{logit} * logit;
      const double deviation = std::sqrt(squares / static_cast<double>(logits.size()));
      EXPECT_TRUE(deviation > 0.5 && deviation < 5) << family << " " << dtype << ": " << deviation;
    }
  }
}

TEST(MakeModel, PerturbedModelsStayClose) {
  TemporaryFolder base, tuned;
  make_model({.dtype = "float32"}, base.path());
  make_model({.dtype = "float32", .perturb = 0.05, .perturb_seed = 7}, tuned.path());
  const auto logits = [](const std::filesystem::path& path) {
    return testing::logits_of(Model::load({.directory = path, .precision = kernels::DType::kF32}),
                              testing::some_ids(16));
  };
  const auto a = logits(base.path()), b = logits(tuned.path());
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  EXPECT_GT(difference / size, 1e-4);
  EXPECT_LT(difference / size, 0.1);
}

TEST(MakeModel, WritesTheTokenizerItIsGiven) {
  TemporaryFolder folder;
  make_model({.tokenizer_json = "{}"}, folder.path());
  EXPECT_EQ(read_text(folder.path() / "tokenizer.json"), "{}");
}

TEST(MakeModel, UnknownNamesAreRefusedWithTheKnownOnes) {
  TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { make_model({.shape = "huge"}, folder.path()); }),
              HasSubstr("`huge`: expected one of tiny"));
  EXPECT_THAT(error_of([&] { make_model({.dtype = "int8"}, folder.path()); }), HasSubstr("`int8`"));
  EXPECT_THAT(error_of([&] { make_model({.family = "gpt2"}, folder.path()); }), HasSubstr("`gpt2`"));
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(to_half(1.0f), 0x3C00);
  EXPECT_EQ(to_half(-2.0f), 0xC000);
  EXPECT_EQ(to_half(1.0f + 1.0f / 2048), 0x3C00);  // a tie
  EXPECT_EQ(to_half(1.0f + 3.0f / 2048), 0x3C02);  // a tie
  EXPECT_EQ(to_half(65504.0f), 0x7BFF);
  EXPECT_EQ(to_half(65520.0f), 0x7C00);
  EXPECT_EQ(to_half(5.9604645e-8f), 0x0001);
  EXPECT_EQ(to_half(6.1035156e-5f), 0x0400);
}

TEST(MadeUpModel, HasTheShapesConfigurationAndSaneLogits) {
  const Model model = Model::made_up(model_shape_config("tiny"), kernels::DType::kF32, kernels::Device::kCpu);
  EXPECT_EQ(model.config().vocab, model_shape_vocab("tiny"));
  EXPECT_EQ(model.config().end_of_sequence, std::vector<TokenId>{2});
  testing::OneSequence sequence(model, 64);
  const auto ids = testing::some_ids(20);
  const SequenceChunk prompt{&sequence.pages, 0, ids};
  const std::vector<float> logits = forward_last_logits(model, sequence.cache, std::span(&prompt, 1));
  double squares = 0;
  for (const float logit : logits) squares += static_cast<double>(logit) * logit;
  const double deviation = std::sqrt(squares / static_cast<double>(logits.size()));
  EXPECT_GT(deviation, 0.5);
  EXPECT_LT(deviation, 8.0);
  EXPECT_THROW(model_shape_config("huge"), Error);
}

// A GPU holds tied embeddings once, and the weights in one piece.
TEST(MadeUpModel, AGpuMakesThatOfTheCpu) {
  SCD_SKIP_WITHOUT_GPU();
  for (const bool tied : {false, true}) {
    ModelConfig config = model_shape_config("tiny");
    config.tied_embeddings = tied;
    const auto logits_on = [&](kernels::Device device) {
      const size_t held_before = kernels::gpu_held_bytes();
      const Model model = Model::made_up(config, kernels::DType::kF32, device);
      if (device == kernels::Device::kGpu) {
        EXPECT_GE(kernels::gpu_held_bytes(), held_before + model.weight_bytes());
        EXPECT_LE(kernels::gpu_held_bytes(), held_before + model.weight_bytes() + 65536) << "but for gaps";
      }
      KvCache cache(model.config().kv_shape(kernels::DType::kF32), 4, device);
      PageTable pages = cache.pool().make_table();
      const auto ids = testing::some_ids(20);
      std::move(pages.reserve(std::ssize(ids))).value_or_throw();
      const SequenceChunk prompt{&pages, 0, ids};
      return forward_last_logits(model, cache, std::span(&prompt, 1));
    };
    EXPECT_LE(testing::largest_difference(logits_on(kernels::Device::kCpu), logits_on(kernels::Device::kGpu)), 1e-3f);
  }
}

}  // namespace
}  // namespace scd
