#include "common/codec/artifact.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "common/codec/registry.h"
#include "common/codec/tensor_file.h"
#include "tests/unit/codec/baseline_samples.h"
#include "tests/unit/codec/codec_samples.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

ModelIdentity identity(char digit) { return {std::string(64, digit), std::string(64, 'c'), R"({"rope_theta":10000})"}; }

std::string slurp(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

void spit(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary) << text; }

class Artifact : public ::testing::Test {
 protected:
  Artifact() {
    root_ = fs::temp_directory_path() / ("scd_artifact_" + std::to_string(::getpid()) + "_" +
                                         ::testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
    encoder_.producer = identity('a');
    encoder_.model = testing::small_model();
    encoder_.calibration = {{std::string(64, '1')}, 1000, 200, 7, 1e-4};
    encoder_.fitted_with = identity('b').weights;
    encoder_.layers = testing::sample_encoder_layers(encoder_.model);
    decoder_.producer = encoder_.producer;
    decoder_.consumer = identity('b');
    decoder_.producer_model = encoder_.model;
    decoder_.model = testing::small_model(1000000.0);
    decoder_.calibration = encoder_.calibration;
    decoder_.prediction = {123.5, 1.25, 0.0625};
    decoder_.layers = testing::sample_decoder_layers(decoder_.model);
  }
  ~Artifact() override { fs::remove_all(root_); }

  fs::path directory() const { return root_ / "pair"; }
  fs::path decoder_directory() const { return directory() / "decoders" / decoder_.consumer.weights; }

  void expect_refused(const std::function<void()>& load, ErrorCode code, const ::testing::Matcher<std::string>& text) {
    try {
      load();
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_THAT(std::string(error.what()), text);
    }
  }

  fs::path root_;
  ArtifactEncoder encoder_;
  ArtifactDecoder decoder_;
};

TEST_F(Artifact, OfRdComesBackAsWritten) {
  testing::RdSample sample = testing::sample_rd(encoder_.model, {1, {{1, 1}, {2, 1, true}}}, {0.1f, 0.3f});
  DenseMatrix& anchor_map = sample.decoder.units[0].anchor_map;
  ASSERT_GT(anchor_map.rows, 2);
  sample.decoder.units[0].anchor_basis = testing::random_matrix(anchor_map.rows, 2, 5);
  anchor_map = testing::random_matrix(2, anchor_map.columns, 6);
  encoder_.codec = decoder_.codec = CodecId::kRd;
  encoder_.layers.clear();
  decoder_.layers.clear();
  encoder_.rd = sample.encoder;
  decoder_.rd = sample.decoder;
  const int64_t inputs = sample.decoder.units[1].map.rows + encoder_.model.hidden;  // of the residual's network
  const int64_t outputs = std::ssize(sample.decoder.units[1].mean);
  decoder_.rd.units[1].network = {testing::random_matrix(inputs, 5, 71), testing::random_matrix(1, 5, 72).values,
                                  testing::random_matrix(5, outputs, 73),
                                  testing::random_matrix(1, outputs, 74).values};
  decoder_.levels = {{900, 4, 0.01, 0.02}, {400, 9, 0.125, 0.25}};
  write_artifact(directory(), encoder_, decoder_);
  EXPECT_EQ(load_encoder(directory()), encoder_);
  EXPECT_EQ(load_decoder(directory(), decoder_.consumer.weights), decoder_);
  EXPECT_NE(make_decoder(CodecId::kRd, decoder_.producer_model, decoder_.model, &decoder_), nullptr);
  const ArtifactEncoder loaded = load_encoder(directory());
  EXPECT_EQ(make_encoder(CodecId::kRd, encoder_.model, &loaded)->levels(), 2);
  expect_refused([&] { make_encoder(CodecId::kScd, encoder_.model, &loaded); }, ErrorCode::kFailedPrecondition,
                 HasSubstr("the artifact is one of codec rd"));
  const auto header = decoder_directory() / "codec.json";
  std::string text = slurp(header);
  // Artifacts without bounds are judged by the mean.
  text.replace(text.find("\"kl_upper\": 0.25"), 16, "\"before\": 1");
  spit(header, text);
  EXPECT_EQ(load_decoder(directory(), decoder_.consumer.weights).levels[1].kl_upper, 0.125);
  text.replace(text.find("0.125"), 5, "null ");
  spit(header, text);
  expect_refused([&] { load_decoder(directory(), decoder_.consumer.weights); }, ErrorCode::kDataLoss,
                 HasSubstr("levels[1].kl"));
}

TEST(TensorFile, RowsThatAreMultiplesOfAScaleTakeAByteAValue) {
  DenseMatrix matrix(2, 300);
  for (int64_t column = 0; column < matrix.columns; ++column) {
    matrix.at(0, column) = 0.0390625f * static_cast<float>(column % 255 - 127);
    matrix.at(1, column) = 3.140625f * static_cast<float>(127 - column % 128);
  }
  const std::string file = serialize_tensors({{"m", matrix}});
  EXPECT_LT(file.size(), 1100U);
  const auto read = [](const std::string& bytes) {
    return parse_tensors(std::as_bytes(std::span(bytes)), "tensors.safetensors");
  };
  const TensorMap back = read(file);
  ASSERT_EQ(back.size(), 1U);  // the scales are no tensor of their own
  EXPECT_EQ(back.at("m"), matrix);
  matrix.at(1, 5) += 0.01f;  // no multiple any more: FP32, still the same values
  EXPECT_EQ(read(serialize_tensors({{"m", matrix}})).at("m"), matrix);
  std::string without_scale = file;
  without_scale.replace(without_scale.find("m.scale"), 7, "n.scale");
  try {
    read(without_scale);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDataLoss);
    EXPECT_THAT(error.what(), HasSubstr("tensor m: no scale for each row"));
  }
}

TEST_F(Artifact, OfTheBaselinesComesBackAsWritten) {
  encoder_.layers.clear();
  decoder_.layers.clear();
  encoder_.codec = decoder_.codec = CodecId::kDroidSpeak;
  encoder_.plan = decoder_.plan = testing::sample_droidspeak_plan();
  write_artifact(root_ / "droidspeak", encoder_, decoder_);
  EXPECT_EQ(load_encoder(root_ / "droidspeak"), encoder_);
  EXPECT_EQ(load_decoder(root_ / "droidspeak", decoder_.consumer.weights), decoder_);
  EXPECT_EQ(*decoder_.calibrated_plan(), decoder_.plan);
  EXPECT_TRUE(make_encoder(CodecId::kDroidSpeak, encoder_.model, &encoder_)->needs_residual(2));
  const auto header = root_ / "droidspeak" / "encoder" / "codec.json";
  std::string text = slurp(header);
  text.replace(text.find("\"native\": 1"), 11, "\"native\": 7");
  spit(header, text);
  expect_refused([&] { load_encoder(root_ / "droidspeak"); }, ErrorCode::kDataLoss, HasSubstr("units[1].native"));

  encoder_.codec = decoder_.codec = CodecId::kLoraDelta;
  encoder_.plan = decoder_.plan = {};
  const testing::LoraSample sample = testing::sample_lora(encoder_.model);
  encoder_.lora = sample.down;
  decoder_.lora = sample.up;
  write_artifact(root_ / "lora", encoder_, decoder_);
  EXPECT_EQ(load_encoder(root_ / "lora"), encoder_);
  EXPECT_EQ(load_decoder(root_ / "lora", decoder_.consumer.weights), decoder_);
  EXPECT_EQ(decoder_.calibrated_plan(), nullptr);
  EXPECT_EQ(make_encoder(CodecId::kLoraDelta, encoder_.model, &encoder_)->id(), encoder_.id);
  EXPECT_EQ(make_decoder(CodecId::kLoraDelta, encoder_.model, decoder_.model, &decoder_)->encoder_id(), encoder_.id);
}

TEST_F(Artifact, ReadsBackWhatWasWritten) {
  write_artifact(directory(), encoder_, decoder_);
  EXPECT_EQ(load_encoder(directory()), encoder_);
  EXPECT_EQ(load_decoder(directory(), decoder_.consumer.weights), decoder_);
  EXPECT_NE(encoder_.id, Sha256Digest{});
  EXPECT_EQ(decoder_.encoder_id, encoder_.id);
  EXPECT_THAT(encoder_.patch_layers(), ElementsAre(1));
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), {}), 1) << "temporary directories are left";
}

TEST_F(Artifact, WritingTheSameTwiceGivesTheSameBytes) {
  write_artifact(directory(), encoder_, decoder_);
  const std::string first = slurp(decoder_directory() / "tensors.safetensors");
  const Sha256Digest id = encoder_.id;
  write_artifact(directory(), encoder_, decoder_);
  EXPECT_EQ(encoder_.id, id);
  EXPECT_EQ(slurp(decoder_directory() / "tensors.safetensors"), first);
}

TEST_F(Artifact, ASecondConsumerLeavesTheEncoderAlone) {
  write_artifact(directory(), encoder_, decoder_);
  const auto time = fs::last_write_time(directory() / "encoder" / "codec.json");
  ArtifactDecoder second = decoder_;
  second.consumer = identity('d');
  add_decoder(directory(), second);
  EXPECT_EQ(load_encoder(directory()).id, encoder_.id);
  EXPECT_EQ(fs::last_write_time(directory() / "encoder" / "codec.json"), time);
  EXPECT_THAT(list_decoders(directory()), ElementsAre(decoder_.consumer.weights, second.consumer.weights));
  EXPECT_GE(largest_decoder_bytes(directory()), fs::file_size(decoder_directory() / "tensors.safetensors"));
  EXPECT_EQ(largest_decoder_bytes(root_), 0) << "no artifact";
  second.encoder_id[0] ^= 1;
  expect_refused([&] { add_decoder(directory(), second); }, ErrorCode::kFailedPrecondition,
                 HasSubstr("another encoder"));
}

TEST_F(Artifact, AnotherEncoderIsNotOverwritten) {
  write_artifact(directory(), encoder_, decoder_);
  ArtifactEncoder other = encoder_;
  other.layers[0].key.at(0, 0) += 1.0f;
  expect_refused([&] { write_artifact(directory(), other, decoder_); }, ErrorCode::kAlreadyExists,
                 HasSubstr("another encoder"));
  EXPECT_EQ(load_encoder(directory()).layers, encoder_.layers);
}

TEST_F(Artifact, NamesTheConsumersThereAre) {
  write_artifact(directory(), encoder_, decoder_);
  expect_refused([&] { load_decoder(directory(), std::string(64, 'e')); }, ErrorCode::kNotFound,
                 AllOf(HasSubstr("eeeeeeeeeeee"), HasSubstr("bbbbbbbbbbbb")));
  expect_refused([&] { load_decoder(directory(), "../../etc"); }, ErrorCode::kNotFound, HasSubstr("no decoder"));
  expect_refused([&] { load_encoder(root_ / "nowhere"); }, ErrorCode::kNotFound, HasSubstr("codec.json"));
}

TEST_F(Artifact, MismatchedModelsAreNamedEachByEach) {
  write_artifact(directory(), encoder_, decoder_);
  EXPECT_TRUE(check_compatible(encoder_, identity('a')).ok());
  EXPECT_TRUE(check_compatible(decoder_, identity('a'), identity('b')).ok());
  ModelIdentity producer = identity('a');
  producer.tokenizer = std::string(64, 'f');
  ModelIdentity consumer = identity('9');
  consumer.rope = R"({"rope_theta":5})";
  const auto result = check_compatible(decoder_, producer, consumer);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.failure().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(result.failure().message,
              AllOf(HasSubstr("producer tokenizer: artifact cccccccccccc"), HasSubstr("consumer weights: artifact bbb"),
                    HasSubstr("serving 999"), HasSubstr(R"(consumer RoPE: artifact {"rope_theta":10000})"),
                    ::testing::Not(HasSubstr("producer weights"))));
  EXPECT_FALSE(check_compatible(encoder_, identity('b')).ok());
}

TEST_F(Artifact, BrokenHeadersAreRefusedByFileAndField) {
  write_artifact(directory(), encoder_, decoder_);
  const fs::path file = directory() / "encoder" / "codec.json";
  const std::string sound = slurp(file);
  const auto refuse = [&](const std::string& from, const std::string& to, ErrorCode code, const std::string& what) {
    std::string text = sound;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    spit(file, text.replace(at, from.size(), to));
    expect_refused([&] { load_encoder(directory()); }, code, AllOf(HasSubstr(file.string()), HasSubstr(what)));
  };
  refuse("\"version\": 1", "\"version\": 2", ErrorCode::kUnimplemented, "version 2");
  refuse("\"layers\": 3", "\"layers\": \"3\"", ErrorCode::kDataLoss, "field model.layers");
  refuse("\"layers\": 3", "\"layers\": 99999999999999999999", ErrorCode::kDataLoss, "field model.layers");
  refuse("\"head_dim\": 8", "\"head\": 8", ErrorCode::kDataLoss, "field model.head_dim is missing");
  refuse("\"part\": \"encoder\"", "\"part\": \"decoder\"", ErrorCode::kDataLoss, "field part");
  refuse("\"seed\": 7", "\"seed\": -7", ErrorCode::kDataLoss, "field calibration.seed");
  refuse(std::string(64, 'a'), std::string(63, 'a'), ErrorCode::kDataLoss, "field producer.weights");
  refuse("1\n ]", "2\n ]", ErrorCode::kDataLoss, "patch_layers");
  refuse("{", "", ErrorCode::kDataLoss, "not a JSON object");
}

TEST_F(Artifact, TruncatedAndBrokenTensorsAreRefused) {
  write_artifact(directory(), encoder_, decoder_);
  const fs::path file = decoder_directory() / "tensors.safetensors";
  const std::string sound = slurp(file);
  const auto refuse = [&](const std::string& text, const std::string& what) {
    spit(file, text);
    expect_refused([&] { load_decoder(directory(), decoder_.consumer.weights); }, ErrorCode::kDataLoss,
                   AllOf(HasSubstr("tensors.safetensors"), HasSubstr(what)));
  };
  refuse("", "shorter than its header");
  refuse(sound.substr(0, 100), "header length");
  refuse(sound.substr(0, sound.size() - 4), "data_offsets");
  refuse(sound + "1234", "do not cover");
  std::string huge = sound;
  huge.replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\xff");
  refuse(huge, "header length");
  std::string renamed = sound;
  renamed.replace(renamed.find("layers.2.key"), 12, "layers.2.kex");
  refuse(renamed, "layer 2");
  std::string dtype = sound;
  dtype.replace(dtype.find("\"F32\""), 5, "\"F64\"");
  refuse(dtype, "dtype F64");
  std::string nan = sound;
  nan.replace(nan.size() - 4, 4, "\xff\xff\xff\xff");
  refuse(nan, "not finite");
}

TEST(TensorFile, StoresExactBfloat16InHalfTheBytes) {
  DenseMatrix exact(3, 4);
  exact.at(1, 2) = 1.5f;
  DenseMatrix other(3, 4);
  other.at(0, 0) = 0.1f;
  const std::string bytes = serialize_tensors({{"exact", exact}, {"other", other}});
  EXPECT_THAT(bytes, AllOf(HasSubstr("BF16"), HasSubstr("F32")));
  const TensorMap back = parse_tensors(std::as_bytes(std::span(bytes)), "memory");
  EXPECT_EQ(back.at("exact"), exact);
  EXPECT_EQ(back.at("other"), other);
}

TEST(CodecRegistry, NamesNumbersAndMissingArtifacts) {
  EXPECT_EQ(codec_from_name("raw"), CodecId::kRaw);
  EXPECT_EQ(codec_from_name("scd"), CodecId::kScd);
  EXPECT_EQ(codec_from_name("droidspeak"), CodecId::kDroidSpeak);
  EXPECT_EQ(codec_from_number(10), CodecId::kLoraDelta);
  EXPECT_EQ(codec_from_name("zip"), std::nullopt);
  EXPECT_EQ(codec_from_number(1), CodecId::kRaw);
  EXPECT_EQ(codec_from_number(0), std::nullopt);
  EXPECT_FALSE(needs_artifact(CodecId::kRaw));
  const CodecModel model = testing::small_model();
  EXPECT_EQ(make_encoder(CodecId::kRaw, model, nullptr)->id(),
            make_decoder(CodecId::kRaw, model, model, nullptr)->encoder_id());
  EXPECT_THROW(make_encoder(CodecId::kScd, model, nullptr), Error);
  EXPECT_THROW(make_decoder(CodecId::kScd, model, model, nullptr), Error);
}

}  // namespace
}  // namespace scd
