#include "common/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/model/make_model.h"
#include "tests/unit/model/model_files.h"

namespace scd {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;
using testing::edit_json;
using testing::error_of;
using testing::TemporaryFolder;

class Config : public ::testing::Test {
 protected:
  void SetUp() override { write({}); }
  // A small Llama config with these fields changed; a null removes nothing, it is written as null.
  void write(const Json& changes, const std::vector<std::string>& removed = {}) {
    Json config{{"architectures", {"LlamaForCausalLM"}},
                {"hidden_size", 64},
                {"intermediate_size", 160},
                {"num_hidden_layers", 4},
                {"num_attention_heads", 4},
                {"num_key_value_heads", 2},
                {"vocab_size", 320},
                {"max_position_embeddings", 2048},
                {"rms_norm_eps", 1e-5},
                {"rope_theta", 10000.0},
                {"eos_token_id", 2}};
    if (!changes.is_null()) config.update(changes);
    for (const auto& field : removed) config.erase(field);
    testing::write_text(folder_.path() / "config.json", config.dump());
  }
  ModelConfig read() const { return ModelConfig::from_directory(folder_.path()); }
  std::string error() const {
    return error_of([this] { read(); });
  }
  TemporaryFolder folder_;
};

TEST_F(Config, DefaultsFollowTheFamily) {
  const ModelConfig config = read();
  EXPECT_EQ(config.family, "llama");
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_FALSE(config.qkv_bias || config.qk_norm || config.tied_embeddings);
  EXPECT_EQ(config.sliding_window, 0);
  EXPECT_THAT(config.end_of_sequence, ElementsAre(2));
}

TEST_F(Config, KeyValueHeadsDefaultToQueryHeads) {
  write({}, {"num_key_value_heads"});
  EXPECT_EQ(read().kv_heads, 4);
}

TEST_F(Config, FamiliesDifferInBiasesAndNorms) {
  write({{"architectures", {"Qwen2ForCausalLM"}}});
  EXPECT_TRUE(read().qkv_bias);
  EXPECT_FALSE(read().output_bias);
  write({{"architectures", {"Qwen3ForCausalLM"}}});
  EXPECT_TRUE(read().qk_norm);
  EXPECT_EQ(read().head_dim, 128);
  write({{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(read().qkv_bias && read().output_bias && read().mlp_bias);
}

TEST_F(Config, BothRopeSpellingsMeanTheSame) {
  const Json llama3{{"rope_type", "llama3"},
                    {"factor", 8.0},
                    {"low_freq_factor", 1.0},
                    {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", 64}};
  write({{"rope_theta", 500000.0}, {"rope_scaling", llama3}});
  const ModelConfig old_spelling = read();
  Json parameters = llama3;
  parameters["rope_theta"] = 500000.0;
  write({{"rope_parameters", parameters}}, {"rope_theta"});
  const ModelConfig new_spelling = read();
  EXPECT_EQ(old_spelling.rope, new_spelling.rope);
  EXPECT_EQ(old_spelling.rope_settings, new_spelling.rope_settings);
  write({{"rope_theta", 500000.0}});
  EXPECT_NE(read().rope_settings, new_spelling.rope_settings);
}

TEST_F(Config, LinearScalingDividesEveryFrequency) {
  const auto plain = read().rope.inverse_frequencies;
  write({{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}}});
  const auto scaled = read().rope.inverse_frequencies;
  ASSERT_EQ(plain.size(), scaled.size());
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_FLOAT_EQ(scaled[i], plain[i] / 4.0f);
}

TEST_F(Config, DeepNestingIsRefusedInsteadOfRecursedInto) {
  std::string deep(100000, '[');
  deep += std::string(100000, ']');
  testing::write_text(folder_.path() / "config.json", "{\"rope_scaling\": " + deep + "}");
  EXPECT_THAT(error(), HasSubstr("nested deeper"));
}

// A scaling in one spelling that the other does not have would be dropped without a word.
TEST_F(Config, RopeSettingsInBothSpellingsMustMeanTheSame) {
  const Json llama3{{"rope_type", "llama3"},
                    {"factor", 8.0},
                    {"low_freq_factor", 1.0},
                    {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", 64}};
  write({{"rope_parameters", {{"rope_theta", 10000.0}}}, {"rope_scaling", llama3}});
  EXPECT_THAT(error(), AllOf(HasSubstr("rope_scaling"), HasSubstr("llama3"), HasSubstr("default")));
  Json parameters = llama3;
  parameters["rope_theta"] = 10000.0;
  write({{"rope_parameters", parameters}, {"rope_scaling", llama3}});
  EXPECT_EQ(error(), "");
}

TEST_F(Config, UnknownRopeTypesAreRefusedByName) {
  write({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}});
  EXPECT_THAT(error(), AllOf(HasSubstr("config.json: field `rope_scaling`"), HasSubstr("`yarn` is not supported")));
  write({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}});
  EXPECT_THAT(error(), HasSubstr("per layer type"));
  write({{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}}});
  EXPECT_THAT(error(), HasSubstr("`low_freq_factor`"));
  write({{"partial_rotary_factor", 0.5}});
  EXPECT_THAT(error(), HasSubstr("partial_rotary_factor"));
}

TEST_F(Config, MistralWindowIsReadAndNullMeansNone) {
  write({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 24}});
  EXPECT_EQ(read().sliding_window, 24);
  EXPECT_EQ(read().first_window_layer, 0);
  write({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", nullptr}});
  EXPECT_EQ(read().sliding_window, 0);
}

TEST_F(Config, QwenWindowNeedsItsSwitchAndStartsAtMaxWindowLayers) {
  Json qwen{{"architectures", {"Qwen2ForCausalLM"}}, {"sliding_window", 24}, {"max_window_layers", 3}};
  write(qwen);
  EXPECT_EQ(read().sliding_window, 0);
  qwen["use_sliding_window"] = true;
  write(qwen);
  EXPECT_EQ(read().sliding_window, 24);
  EXPECT_EQ(read().first_window_layer, 3);
  qwen["layer_types"] = {"full_attention", "sliding_attention", "sliding_attention", "sliding_attention"};
  write(qwen);
  EXPECT_EQ(read().first_window_layer, 1);
  qwen["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
  write(qwen);
  EXPECT_THAT(error(), HasSubstr("`layer_types`"));
}

TEST_F(Config, EndIdsComeFromGenerationConfigFirst) {
  write({{"eos_token_id", {3, 4}}});
  EXPECT_THAT(read().end_of_sequence, ElementsAre(3, 4));
  testing::write_text(folder_.path() / "generation_config.json", R"({"eos_token_id": [5, 6]})");
  EXPECT_THAT(read().end_of_sequence, ElementsAre(5, 6));
  testing::write_text(folder_.path() / "generation_config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(read().end_of_sequence, ElementsAre(7));
  testing::write_text(folder_.path() / "generation_config.json", R"({"eos_token_id": 320})");
  EXPECT_THAT(error(), HasSubstr("generation_config.json: field `eos_token_id` says 320"));
}

TEST_F(Config, UnknownArchitecturesAreRefusedByName) {
  write({{"architectures", {"GemmaForCausalLM"}}});
  EXPECT_THAT(error(), AllOf(HasSubstr("GemmaForCausalLM"), HasSubstr("expected LlamaForCausalLM")));
  write({{"model_type", "mamba"}}, {"architectures"});
  EXPECT_THAT(error(), HasSubstr("mamba"));
}

TEST_F(Config, BadFieldsNameTheFieldWhatItSaysAndWhatWouldBeRight) {
  const std::vector<std::pair<Json, std::string>> cases{
      {{{"hidden_size", -5}}, "field `hidden_size` says -5; expected 1 to"},
      {{{"hidden_size", "64"}}, "field `hidden_size` says \"64\"; expected an integer"},
      {{{"hidden_size", 66}}, "field `hidden_size` says 66; expected a multiple of num_attention_heads"},
      {{{"num_hidden_layers", 0}}, "field `num_hidden_layers` says 0"},
      {{{"num_key_value_heads", 3}}, "field `num_key_value_heads` says 3; expected a divisor"},
      {{{"head_dim", 15}}, "field `head_dim` says 15; expected an even number"},
      {{{"rms_norm_eps", 0}}, "field `rms_norm_eps` says 0"},
      {{{"hidden_act", "gelu"}}, "field `hidden_act` says \"gelu\"; expected silu"},
      {{{"torch_dtype", "int8"}}, "field `torch_dtype` says \"int8\""},
      {{{"dtype", "float8"}}, "field `dtype` says \"float8\""},
      {{{"quantization_config", {{"bits", 4}}}}, "field `quantization_config`"},
      {{{"tie_word_embeddings", 1}}, "field `tie_word_embeddings` says 1; expected true or false"},
      {{{"rope_theta", -1}}, "field `rope_theta` says -1"},
      {{{"sliding_window", 24}}, "field `sliding_window` says 24"},
      {{{"eos_token_id", "x"}}, "field `eos_token_id`"},
      {{{"architectures", "LlamaForCausalLM"}}, "field `architectures`"},
  };
  for (const auto& [change, expected] : cases) {
    write(change);
    EXPECT_THAT(error(), HasSubstr(expected)) << change.dump();
  }
  write({}, {"vocab_size"});
  EXPECT_THAT(error(), HasSubstr("config.json: field `vocab_size` is missing"));
}

TEST_F(Config, BrokenFilesAreRefused) {
  testing::write_text(folder_.path() / "config.json", "{\"hidden_size\": ");
  EXPECT_THAT(error(), HasSubstr("not valid JSON"));
  testing::write_text(folder_.path() / "config.json", "[]");
  EXPECT_THAT(error(), HasSubstr("expected a JSON object"));
  std::filesystem::remove(folder_.path() / "config.json");
  EXPECT_THAT(error(), HasSubstr("NOT_FOUND"));
}

}  // namespace
}  // namespace scd
