// What a damaged checkpoint says: always the file and the tensor.
#include "common/model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/model/make_model.h"
#include "common/model/model.h"
#include "tests/unit/model/model_files.h"

namespace scd {
namespace {

using ::testing::AllOf;
using testing::edit_json;
using testing::edit_tensors;
using testing::error_of;
using ::testing::HasSubstr;
using testing::named;
using testing::OwnedTensor;
using testing::TemporaryFolder;
using testing::write_tensors;

constexpr const char* kQuery = "model.layers.1.self_attn.q_proj.weight";

class DamagedCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override { make_model({.dtype = "float32"}, path()); }
  const std::filesystem::path& path() const { return folder_.path(); }
  std::string load_error() const {
    return error_of([this] { Model::load({.directory = path(), .precision = kernels::DType::kF32}); });
  }
  // Odd tensors to one shard, even ones to the other.
  void split() {
    const auto tensors = testing::read_tensors(path() / "model.safetensors");
    std::vector<OwnedTensor> shards[2];
    nlohmann::ordered_json map;
    for (size_t i = 0; i < tensors.size(); ++i) {
      shards[i % 2].push_back(tensors[i]);
      map[tensors[i].spec.name] = i % 2 == 0 ? "a.safetensors" : "b.safetensors";
    }
    write_tensors(path() / "a.safetensors", shards[0]);
    write_tensors(path() / "b.safetensors", shards[1]);
    std::filesystem::remove(path() / "model.safetensors");
    testing::write_text(path() / "model.safetensors.index.json", nlohmann::ordered_json{{"weight_map", map}}.dump());
  }
  TemporaryFolder folder_;
};

TEST_F(DamagedCheckpoint, WholeOnesLoadSingleAndSharded) {
  EXPECT_EQ(load_error(), "");
  split();
  EXPECT_EQ(load_error(), "");
}

TEST_F(DamagedCheckpoint, MissingFolderAndMissingFilesAreNotFound) {
  EXPECT_THAT(error_of([] { Checkpoint("/nowhere/at/all"); }),
              AllOf(HasSubstr("NOT_FOUND"), HasSubstr("/nowhere/at/all")));
  std::filesystem::remove(path() / "model.safetensors");
  EXPECT_THAT(load_error(), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
}

TEST_F(DamagedCheckpoint, MissingShardIsNamed) {
  split();
  std::filesystem::remove(path() / "b.safetensors");
  EXPECT_THAT(load_error(), AllOf(HasSubstr("NOT_FOUND"), HasSubstr("b.safetensors")));
}

TEST_F(DamagedCheckpoint, TruncatedFileIsNamed) {
  std::filesystem::resize_file(path() / "model.safetensors",
                               std::filesystem::file_size(path() / "model.safetensors") - 1);
  EXPECT_THAT(load_error(), AllOf(HasSubstr("DATA_LOSS"), HasSubstr("model.safetensors: truncated: tensor `")));
}

TEST_F(DamagedCheckpoint, MissingTensorIsNamed) {
  edit_tensors(path(), [](auto& tensors) { std::erase_if(tensors, [](auto& t) { return t.spec.name == kQuery; }); });
  EXPECT_THAT(load_error(),
              AllOf(HasSubstr("NOT_FOUND"), HasSubstr(std::string("tensor `") + kQuery + "` [64, 64] is missing")));
}

TEST_F(DamagedCheckpoint, TensorThatTheIndexPromisesIsNamed) {
  split();
  edit_json(path() / "model.safetensors.index.json", [](auto& json) { json["weight_map"]["extra"] = "a.safetensors"; });
  EXPECT_THAT(load_error(), AllOf(HasSubstr("a.safetensors: tensor `extra`"), HasSubstr("is missing")));
}

TEST_F(DamagedCheckpoint, IndexMayNotPointOutOfTheFolder) {
  split();
  edit_json(path() / "model.safetensors.index.json", [](auto& json) { json["weight_map"]["x"] = "../a.safetensors"; });
  EXPECT_THAT(load_error(), HasSubstr("tensor `x`: expected the name of a file in the same folder"));
}

TEST_F(DamagedCheckpoint, WrongShapeSaysExpectedAndFound) {
  edit_tensors(path(), [](auto& tensors) { named(tensors, kQuery).spec.shape = {32, 128}; });
  EXPECT_THAT(load_error(), AllOf(HasSubstr("model.safetensors: tensor `"), HasSubstr(kQuery),
                                  HasSubstr("expected shape [64, 64], found [32, 128]")));
}

TEST_F(DamagedCheckpoint, ConfigThatDoesNotFitTheTensorsNamesTheFirstOne) {
  edit_json(path() / "config.json", [](auto& json) { json["intermediate_size"] = 192; });
  EXPECT_THAT(load_error(),
              AllOf(HasSubstr("gate_proj.weight"), HasSubstr("expected shape [192, 64], found [160, 64]")));
}

TEST_F(DamagedCheckpoint, WrongDtypeIsNamed) {
  const auto file = path() / "model.safetensors";
  auto text = testing::read_text(file);
  const auto at = text.find("\"F32\"", text.find(kQuery));
  text.replace(at, 5, "\"I32\"");
  testing::write_text(file, text);
  EXPECT_THAT(load_error(), AllOf(HasSubstr(kQuery), HasSubstr("dtype I32; expected BF16, F16 or F32")));
}

TEST_F(DamagedCheckpoint, TensorOfAnotherArchitectureIsRefusedByName) {
  edit_tensors(path(), [](auto& tensors) {
    tensors.push_back(testing::tensor_f32("model.layers.0.mlp.router.weight", {1}, {0.0f}));
  });
  EXPECT_THAT(load_error(), AllOf(HasSubstr("model.layers.0.mlp.router.weight"), HasSubstr("does not belong")));
}

TEST_F(DamagedCheckpoint, TiedEmbeddingsMayBeStoredUnderEitherNameButNotDifferently) {
  edit_json(path() / "config.json", [](auto& json) { json["tie_word_embeddings"] = true; });
  EXPECT_THAT(load_error(), HasSubstr("tensor `lm_head.weight` differs from `model.embed_tokens.weight`"));
  edit_tensors(path(), [](auto& tensors) {
    named(tensors, "lm_head.weight").bytes = named(tensors, "model.embed_tokens.weight").bytes;
  });
  EXPECT_EQ(load_error(), "");
  edit_tensors(path(), [](auto& tensors) {
    std::erase_if(tensors, [](auto& t) { return t.spec.name == "model.embed_tokens.weight"; });
  });
  EXPECT_EQ(load_error(), "");
  edit_json(path() / "config.json", [](auto& json) { json["tie_word_embeddings"] = false; });
  EXPECT_THAT(load_error(), HasSubstr("`model.embed_tokens.weight` [320, 64] is missing"));
}

}  // namespace
}  // namespace scd
