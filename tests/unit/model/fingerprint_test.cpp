#include "common/model/fingerprint.h"

#include <gtest/gtest.h>

#include <chrono>

#include "common/model/make_model.h"
#include "tests/unit/model/model_files.h"

namespace scd {
namespace {

using testing::edit_json;
using testing::edit_tensors;
using testing::TemporaryFolder;

class Fingerprint : public ::testing::Test {
 protected:
  void SetUp() override { make_model({}, path()); }
  const std::filesystem::path& path() const { return folder_.path(); }
  std::string weights() const { return fingerprint_model(path(), std::nullopt).weights; }
  std::filesystem::path cache() const { return path() / ".scd_fingerprint.json"; }
  // As a file has it that was written a while ago.
  void age(const std::filesystem::path& file, std::chrono::seconds by) {
    std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() - by);
  }
  TemporaryFolder folder_;
};

TEST_F(Fingerprint, IsTheSameTwiceAndForTheSameModelElsewhere) {
  TemporaryFolder elsewhere;
  make_model({}, elsewhere.path());
  EXPECT_EQ(weights().size(), 64u);
  EXPECT_EQ(weights(), weights());
  EXPECT_EQ(fingerprint_model(elsewhere.path(), std::nullopt), fingerprint_model(path(), std::nullopt));
}

TEST_F(Fingerprint, DoesNotDependOnSharding) {
  const std::string single = weights();
  const auto tensors = testing::read_tensors(path() / "model.safetensors");
  const auto half = tensors.begin() + static_cast<std::ptrdiff_t>(tensors.size() / 2);
  const std::vector<testing::OwnedTensor> first(half, tensors.end()), second(tensors.begin(), half);
  testing::write_tensors(path() / "x.safetensors", first);
  testing::write_tensors(path() / "y.safetensors", second);
  nlohmann::ordered_json map;
  for (const auto& tensor : first) map[tensor.spec.name] = "x.safetensors";
  for (const auto& tensor : second) map[tensor.spec.name] = "y.safetensors";
  testing::write_text(path() / "model.safetensors.index.json", nlohmann::ordered_json{{"weight_map", map}}.dump());
  std::filesystem::remove(path() / "model.safetensors");
  EXPECT_EQ(weights(), single);
}

TEST_F(Fingerprint, AnyWeightChangesIt) {
  const std::string before = weights();
  edit_tensors(path(), [](auto& tensors) { tensors.back().bytes.back() ^= std::byte{1}; });
  EXPECT_NE(weights(), before);
}

TEST_F(Fingerprint, RopeAndNormSettingsChangeIt) {
  const auto before = fingerprint_model(path(), std::nullopt);
  edit_json(path() / "config.json", [](auto& json) { json["rope_theta"] = 500000.0; });
  const auto after = fingerprint_model(path(), std::nullopt);
  EXPECT_NE(after.weights, before.weights);
  EXPECT_NE(after.rope, before.rope);
  edit_json(path() / "config.json", [](auto& json) { json["rms_norm_eps"] = 1e-4; });
  EXPECT_NE(weights(), after.weights);
}

TEST_F(Fingerprint, SpellingOfTheSameSettingsDoesNot) {
  const auto before = fingerprint_model(path(), std::nullopt);
  edit_json(path() / "config.json", [](auto& json) {
    json["rope_parameters"] = {{"rope_theta", json["rope_theta"]}, {"rope_type", "default"}};
    json.erase("rope_theta");
    json["use_cache"] = false;
  });
  EXPECT_EQ(fingerprint_model(path(), std::nullopt), before);
}

TEST_F(Fingerprint, AdapterAndItsScaleChangeIt) {
  const std::string base = weights();
  TemporaryFolder adapter;
  const std::string module = "base_model.model.model.layers.0.self_attn.q_proj.";
  testing::write_text(adapter.path() / "adapter_config.json", R"({"peft_type": "LORA", "r": 1, "lora_alpha": 2})");
  testing::write_tensors(
      adapter.path() / "adapter_model.safetensors",
      std::vector{testing::tensor_f32(module + "lora_A.weight", {1, 64}, std::vector<float>(64, 0.5f)),
                  testing::tensor_f32(module + "lora_B.weight", {64, 1}, std::vector<float>(64, 0.25f))});
  const std::string merged = fingerprint_model(path(), adapter.path()).weights;
  EXPECT_NE(merged, base);
  edit_json(adapter.path() / "adapter_config.json", [](auto& json) { json["lora_alpha"] = 3; });
  EXPECT_NE(fingerprint_model(path(), adapter.path()).weights, merged);
}

TEST_F(Fingerprint, TokenizerIsFingerprintedApart) {
  EXPECT_EQ(fingerprint_model(path(), std::nullopt).tokenizer, "");
  testing::write_text(path() / "tokenizer.json", "abc");
  EXPECT_EQ(fingerprint_model(path(), std::nullopt).tokenizer,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(Fingerprint, IsRememberedUntilAFileChanges) {
  const std::string before = weights();
  EXPECT_FALSE(std::filesystem::exists(cache())) << "a file written this instant may change within the clock's tick";
  age(path() / "model.safetensors", std::chrono::seconds(100));
  EXPECT_EQ(weights(), before);
  ASSERT_TRUE(std::filesystem::exists(cache()));
  edit_json(cache(), [](auto& json) { json["tensors"] = std::string(64, '0'); });
  EXPECT_NE(weights(), before) << "the remembered digest is used";
  age(path() / "model.safetensors", std::chrono::seconds(50));
  EXPECT_EQ(weights(), before) << "another time: computed anew";
}

TEST_F(Fingerprint, BrokenCacheIsIgnored) {
  const std::string before = weights();
  for (const char* text : {"", "{", "[]", R"({"version": 1})", R"({"version": "x"})"}) {
    testing::write_text(cache(), text);
    EXPECT_EQ(weights(), before) << text;
  }
}

}  // namespace
}  // namespace scd
