#include "common/model/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/model/make_model.h"
#include "common/model/model.h"
#include "tests/unit/model/model_files.h"
#include "tests/unit/model/tiny_model.h"

namespace scd {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;
using testing::edit_json;
using testing::error_of;
using testing::OwnedTensor;
using testing::TemporaryFolder;

constexpr const char* kQuery = "model.layers.0.self_attn.q_proj";
constexpr const char* kDown = "model.layers.1.mlp.down_proj";

class Lora : public ::testing::Test {
 protected:
  void SetUp() override {
    make_model({.dtype = "float32"}, base());
    std::filesystem::create_directory(adapter());
    write({});
  }
  std::filesystem::path base() const { return folder_.path() / "base"; }
  std::filesystem::path adapter() const { return folder_.path() / "adapter"; }

  static std::string tensor_name(const std::string& module, char side) {
    return "base_model.model." + module + ".lora_" + side + ".weight";
  }
  // Rank 2 for q_proj of layer 0 [64, 64], rank 1 for down_proj of layer 1 [64, 160].
  static std::vector<OwnedTensor> factors() {
    return {testing::tensor_f32(tensor_name(kQuery, 'A'), {2, 64}, ramp(2 * 64)),
            testing::tensor_f32(tensor_name(kQuery, 'B'), {64, 2}, ramp(64 * 2)),
            testing::tensor_f32(tensor_name(kDown, 'A'), {1, 160}, ramp(160)),
            testing::tensor_f32(tensor_name(kDown, 'B'), {64, 1}, ramp(64))};
  }
  static std::vector<float> ramp(size_t count) {
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = 0.01f * static_cast<float>(static_cast<int>(i % 13) - 6);
    return values;
  }
  void write(const Json& changes, const std::vector<OwnedTensor>& tensors = factors()) {
    Json config{
        {"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 8}, {"bias", "none"}, {"rank_pattern", {{"down_proj", 1}}}};
    if (!changes.is_null()) config.update(changes);
    testing::write_text(adapter() / "adapter_config.json", config.dump());
    testing::write_tensors(adapter() / "adapter_model.safetensors", tensors);
  }
  // What is added to the first weight of a module whose base is zero.
  float first_of(const std::string& module, int64_t rows, int64_t columns) const {
    std::vector<float> weight(static_cast<size_t>(rows * columns), 0.0f);
    EXPECT_TRUE(LoraAdapter(adapter()).merge(module, kernels::matrix(weight.data(), rows, columns)));
    return weight[0];
  }
  std::string error() const {
    return error_of(
        [this] { Model::load({.directory = base(), .adapter = adapter(), .precision = kernels::DType::kF32}); });
  }
  TemporaryFolder folder_;
};

// B A of the ramps at [0, 0], unscaled: q = (-.06)(-.06) + (-.05)(A[1][0] = ramp[64] = .06); d = (-.06)(-.06).
constexpr float kQueryProduct = 0.0036f - 0.05f * 0.01f * (64 % 13 - 6);
constexpr float kDownProduct = 0.0036f;
constexpr float kRounding = 1e-7f;

TEST_F(Lora, APathThatTheFileSystemRefusesIsNamed) {
  const std::string name(300, 'x');
  const std::string error = error_of([&] { LoraAdapter(folder_.path() / name); });
  EXPECT_THAT(error, AllOf(HasSubstr(name), HasSubstr("File name too long")));
}

TEST_F(Lora, ScaleIsAlphaOverRank) {
  EXPECT_NEAR(first_of(kQuery, 64, 64), 8.0f / 2 * kQueryProduct, kRounding);
  EXPECT_NEAR(first_of(kDown, 64, 160), 8.0f / 1 * kDownProduct, kRounding);
}

TEST_F(Lora, RankStabilisedScaleIsAlphaOverRootOfRank) {
  write({{"use_rslora", true}});
  EXPECT_NEAR(first_of(kQuery, 64, 64), 8.0f / std::sqrt(2.0f) * kQueryProduct, kRounding);
}

TEST_F(Lora, PatternsMatchWholeNamesSuffixesAndExpressionsInFileOrder) {
  write({{"alpha_pattern", {{"proj", 99}, {"q_proj", 4}, {"self_attn.q_proj", 6}}}});
  EXPECT_NEAR(first_of(kQuery, 64, 64), 4.0f / 2 * kQueryProduct, kRounding);
  write({{"alpha_pattern", {{"layers\\.[0-9]\\.self_attn\\.[qk]_proj", 6}}}});
  EXPECT_NEAR(first_of(kQuery, 64, 64), 6.0f / 2 * kQueryProduct, kRounding);
  write({{"alpha_pattern", {{"^model.layers.0.self_attn.q_proj", 10}}}});
  EXPECT_NEAR(first_of(kQuery, 64, 64), 10.0f / 2 * kQueryProduct, kRounding);
}

TEST_F(Lora, FanInFanOutChangesNothingForLinearLayers) {
  write({{"fan_in_fan_out", true}});
  EXPECT_NEAR(first_of(kQuery, 64, 64), 8.0f / 2 * kQueryProduct, kRounding);
}

TEST_F(Lora, MergedAtLoadEqualsMergedOnDisk) {
  const auto ids = testing::some_ids(20);
  const auto load = [&](std::optional<std::filesystem::path> with) {
    return testing::logits_of(Model::load({.directory = base(), .adapter = with, .precision = kernels::DType::kF32}),
                              ids);
  };
  const auto plain = load(std::nullopt);
  const auto at_load = load(adapter());
  testing::edit_tensors(base(), [&](auto& tensors) {
    const LoraAdapter lora(adapter());
    for (auto& tensor : tensors) {
      const std::string module = tensor.spec.name.substr(0, tensor.spec.name.rfind('.'));
      if (!lora.touches(module)) continue;
      lora.merge(module, kernels::matrix(reinterpret_cast<float*>(tensor.bytes.data()), tensor.spec.shape[0],
                                         tensor.spec.shape[1]));
    }
  });
  EXPECT_EQ(testing::largest_difference(load(std::nullopt), at_load), 0.0f);
  EXPECT_GT(testing::largest_difference(plain, at_load), 1e-3f);
}

TEST_F(Lora, FeaturesBeyondPlainLoraAreRefusedByName) {
  const std::vector<std::pair<Json, std::string>> cases{
      {{{"use_dora", true}}, "`use_dora`"},
      {{{"bias", "all"}}, "`bias`"},
      {{{"modules_to_save", {"lm_head"}}}, "`modules_to_save`"},
      {{{"layer_replication", Json::array({Json::array({0, 2})})}}, "`layer_replication`"},
      {{{"lora_bias", true}}, "`lora_bias`"},
      {{{"peft_type", "IA3"}}, "`peft_type`"},
      {{{"trainable_token_indices", {1, 2}}}, "`trainable_token_indices`"},
      {{{"alora_invocation_tokens", {1, 2}}}, "`alora_invocation_tokens`"},
      {{{"target_parameters", {"experts"}}}, "`target_parameters`"},
      {{{"use_qalora", true}}, "`use_qalora`"},
      {{{"something_new", 3}}, "`something_new`"},
      {{{"init_lora_weights", "pissa"}}, "`init_lora_weights`"},
      {{{"alpha_pattern", {{"(", 1}}}}, "`alpha_pattern`"},
      {{{"r", 0}, {"rank_pattern", Json::object()}}, "expected ranks"},
      {{{"target_modules", {"k_proj"}}}, "not among target_modules"},
  };
  for (const auto& [change, expected] : cases) {
    write(change);
    EXPECT_THAT(error(), HasSubstr(expected)) << change.dump();
  }
}

TEST_F(Lora, ForeignTensorsAreRefusedByName) {
  for (const char* name :
       {"base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.lm_head.modules_to_save.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias"}) {
    auto tensors = factors();
    tensors.push_back(testing::tensor_f32(name, {1}, {1.0f}));
    write({}, tensors);
    EXPECT_THAT(error(), AllOf(HasSubstr(name), HasSubstr("not supported"))) << name;
  }
  auto tensors = factors();
  tensors.push_back(testing::tensor_f32(tensor_name("model.layers.9.mlp.up_proj", 'A'), {2, 64}, ramp(128)));
  tensors.push_back(testing::tensor_f32(tensor_name("model.layers.9.mlp.up_proj", 'B'), {160, 2}, ramp(320)));
  write({}, tensors);
  EXPECT_THAT(error(), AllOf(HasSubstr("model.layers.9.mlp.up_proj"), HasSubstr("no linear layer of this name")));
}

TEST_F(Lora, MissingAndMisshapenFactorsAreNamed) {
  auto tensors = factors();
  tensors.erase(tensors.begin() + 1);
  write({}, tensors);
  EXPECT_THAT(error(), AllOf(HasSubstr("NOT_FOUND"), HasSubstr(tensor_name(kQuery, 'B'))));
  write({{"target_modules", {"q_proj", "down_proj"}}});
  EXPECT_THAT(error(), AllOf(HasSubstr("is missing, target_modules asks for it")));
  write({{"r", 4}});
  EXPECT_THAT(error(), AllOf(HasSubstr(tensor_name(kQuery, 'A')), HasSubstr("expected shape [4, 64], found [2, 64]")));
  std::filesystem::remove(adapter() / "adapter_model.safetensors");
  EXPECT_THAT(error(), AllOf(HasSubstr("NOT_FOUND"), HasSubstr("adapter_model.safetensors")));
}

}  // namespace
}  // namespace scd
