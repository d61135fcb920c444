// The scd codec through both servers, with maps that change nothing: what comes out must be the consumer's own answer
// up to the rounding of the codes to BF16.
#include <gmock/gmock.h>

#include <cmath>

#include "artifact_models.h"
#include "rd_pair.h"

namespace scd::testing {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kPatchLayer = 2;

DenseMatrix identity(int64_t size) {
  DenseMatrix matrix(size, size);
  for (int64_t i = 0; i < size; ++i) matrix.at(i, i) = 1.0f;
  return matrix;
}

void write_identity_artifact(const std::filesystem::path& model, const std::filesystem::path& directory) {
  ArtifactEncoder encoder;
  encoder.producer = model_identity(model);
  encoder.model = codec_model(model);
  encoder.calibration = {{std::string(64, '1')}, 1000, 100, 1, 1e-4};
  encoder.fitted_with = encoder.producer.weights;
  ArtifactDecoder decoder;
  decoder.producer = decoder.consumer = encoder.producer;
  decoder.producer_model = decoder.model = encoder.model;
  decoder.calibration = encoder.calibration;
  decoder.prediction = {.bytes_per_token = 512, .ratio_to_bf16 = 1, .kl = 0.05, .kl_upper = 0.5};
  const int64_t hidden = encoder.model.hidden;
  for (int32_t layer = 0; layer < encoder.model.layers; ++layer) {
    if (layer == kPatchLayer) {
      encoder.layers.push_back({.key = {}, .value = {}, .hidden = identity(hidden)});
      const auto width = static_cast<size_t>(hidden);
      decoder.layers.push_back({.key = {},
                                .value = {},
                                .predictor = {.linear = identity(hidden),
                                              .bias = std::vector<float>(width),
                                              .network = {.input = DenseMatrix(hidden, 1),
                                                          .input_bias = std::vector<float>(1),
                                                          .output = DenseMatrix(1, hidden),
                                                          .output_bias = {}}}});
      continue;
    }
    const DenseMatrix map = identity(encoder.model.head_dim);
    encoder.layers.push_back({.key = map, .value = map, .hidden = {}});
    decoder.layers.push_back({.key = map, .value = map, .predictor = {}});
  }
  write_artifact(directory, encoder, decoder);
}

class ScdPairTest : public PairTest {
 protected:
  std::filesystem::path artifact() {
    const auto directory = root() / "artifact";
    if (!std::filesystem::exists(directory)) write_identity_artifact(base_model(), directory);
    return directory;
  }
  void use_scd(DecodeConfig& config) {
    config.codec.mode = CodecMode::kScd;
    config.codec.artifact = artifact();
  }
};

TEST_F(RdPairTest, every_level_answers_with_fewer_bytes_than_the_one_before) {
  start_rd_prefill();
  start_rd();
  auto request = greedy_request(300);
  request.set_logprobs(5);
  const auto alone = complete_alone(request);
  uint64_t before = UINT64_MAX;
  for (const auto& [level, tolerance] : {std::pair(0u, 0.05), std::pair(1u, 0.1), std::pair(2u, 0.5)}) {
    v1::CodecChoice& choice = *request.mutable_codec()->mutable_choice();
    choice.set_codec(v1::CODEC_RD);
    choice.set_level(level);
    const auto coded = complete(request);
    EXPECT_EQ(coded.finish().transfer().codec(), v1::CODEC_RD);
    EXPECT_EQ(coded.finish().transfer().level(), level);
    EXPECT_EQ(coded.finish().transfer().fallback_reason(), "");
    EXPECT_LT(coded.finish().transfer().wire_bytes(), before);
    before = coded.finish().transfer().wire_bytes();
    EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone.logprobs(0).top(0).logprob(), tolerance) << level;
  }
  request.mutable_codec()->mutable_choice()->set_level(3);
  v1::CompleteResponse response;
  const grpc::Status status = complete(request, response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("codec.choice.level: 3; expected a level below 3"));
  expect_idle();
}

// The same answer whichever layers are coded together, predicted, or run here from a coded residual stream; from fresh
// codes and from stored ones, which come in another order.
TEST_F(RdPairTest, every_plan_rebuilds_the_consumers_state) {
  const int32_t layers = codec_model(base_model()).layers;
  ASSERT_GE(layers, 4);
  const std::vector<LayerPlan> plans{layer_by_layer(layers, 0),
                                     {1, {{1, layers - 1}}},
                                     {2, {{2, 1}, {3, layers - 3}}},
                                     {1, {{1, layers - 1, true}}},
                                     {1, {{1, 1}, {2, 1, true}, {3, layers - 3}}},
                                     {1, {{1, 1, true}, {2, 1}, {3, layers - 3, true}}}};
  for (const LayerPlan& plan : plans) {
    write_artifact_of(plan);
    start_rd_prefill();
    start_rd();
    auto request = greedy_request(300);
    request.set_logprobs(5);
    const auto alone = complete_alone(request);
    request.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RD);
    request.mutable_codec()->mutable_choice()->set_form(v1::CODE_FORM_ENTROPY);
    for (const bool stored : {false, true}) {
      const auto coded = complete(request);
      EXPECT_EQ(coded.finish().transfer().fallback_reason(), "") << to_string(plan);
      EXPECT_GT(coded.finish().transfer().wire_bytes(), 0U) << to_string(plan);
      EXPECT_EQ(coded.finish().transfer().cached_tokens() > 0, stored) << to_string(plan);
      EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone.logprobs(0).top(0).logprob(), 0.05) << to_string(plan);
    }
    expect_idle();
  }
}

TEST_F(RdPairTest, the_level_follows_max_kl) {
  start_prefill([this](PrefillConfig& config) { config.codec.artifact = artifact(); });
  const auto level_with = [&](double max_kl, int32_t level) {
    start_rd([&](DecodeConfig& config) {
      config.codec.max_kl = max_kl;
      config.codec.level = level;
    });
    return complete(greedy_request(200)).finish().transfer().level();
  };
  EXPECT_EQ(level_with(0, -1), 1u);
  EXPECT_EQ(level_with(0.2, -1), 2u);
  EXPECT_EQ(level_with(0.01, -1), 1u);
  EXPECT_EQ(level_with(0.002, -1), 0u);
  EXPECT_EQ(level_with(0, 2), 2u);
  EXPECT_THROW(level_with(0.0001, -1), Error);
  EXPECT_THROW(level_with(0.01, 2), Error);
  EXPECT_THROW(level_with(0, 3), Error);
}

TEST_F(RdPairTest, an_artifact_that_wants_too_much_of_the_consumer_is_refused_at_start) {
  const int32_t layers = codec_model(base_model()).layers;
  write_artifact_of({2, {{2, layers - 2, true}}});  // all but two layers' outputs
  try {
    start_rd([](DecodeConfig& config) { config.codec.max_native_share = 0.3; });
    FAIL() << "started";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr("codec.max_native_share"));
  }
  start_rd([](DecodeConfig& config) { config.codec.max_native_share = 0.9; });
}

TEST_F(RdPairTest, an_artifact_of_another_codec_than_the_mode_is_refused_at_start) {
  try {
    start_rd([](DecodeConfig& config) { config.codec.mode = CodecMode::kScd; });
    FAIL() << "started";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("is an artifact of codec rd, but codec.mode is scd"));
  }
}

TEST_F(ScdPairTest, reuse_and_patch_layers_rebuild_the_consumers_state) {
  start_prefill([this](PrefillConfig& config) { config.codec.artifact = artifact(); });
  start_decode([this](DecodeConfig& config) { use_scd(config); });
  auto request = greedy_request(300);
  request.set_max_tokens(1);
  request.set_logprobs(5);
  const auto coded = complete(request);
  const auto alone = complete_alone(request);
  EXPECT_EQ(coded.finish().transfer().codec(), v1::CODEC_SCD);
  EXPECT_EQ(coded.finish().transfer().fallback_reason(), "");
  ASSERT_EQ(coded.logprobs_size(), 1);
  // The rounding of codes may move a log-probability a little, not the distribution.
  EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone.logprobs(0).top(0).logprob(), 0.1);
  expect_idle();
}

TEST_F(ScdPairTest, fewer_ranks_send_fewer_bytes) {
  start_prefill([this](PrefillConfig& config) { config.codec.artifact = artifact(); });
  start_decode([this](DecodeConfig& config) { use_scd(config); });
  auto request = greedy_request(200);
  const uint64_t whole = complete(request).finish().transfer().wire_bytes();
  v1::CodecChoice& choice = *request.mutable_codec()->mutable_choice();
  choice.set_codec(v1::CODEC_SCD);
  choice.mutable_rank()->set_key(4);
  choice.mutable_rank()->set_value(8);
  choice.mutable_rank()->set_hidden(16);
  const auto capped = complete(request);
  EXPECT_LT(capped.finish().transfer().wire_bytes(), whole / 2);
  EXPECT_EQ(capped.finish().transfer().rank().key(), 4u);
  choice.set_codec(v1::CODEC_RAW);
  EXPECT_EQ(complete(request).finish().transfer().codec(), v1::CODEC_RAW);
  expect_idle();
}

TEST_F(ScdPairTest, an_artifact_of_other_models_is_refused_by_what_differs) {
  start_prefill([this](PrefillConfig& config) { config.model.directory = tuned_model(); });
  start_decode([this](DecodeConfig& config) { use_scd(config); });
  v1::CompleteResponse response;
  const grpc::Status status = complete(greedy_request(150), response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("producer weights"));
  EXPECT_EQ(decode_server->counters().local_fallbacks, 0u);
  expect_idle();
}

TEST_F(ScdPairTest, a_prefill_server_without_the_artifact_refuses_its_codes) {
  start_prefill();
  start_decode([this](DecodeConfig& config) { use_scd(config); });
  v1::CompleteResponse response;
  const grpc::Status status = complete(greedy_request(150), response);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.error_message(), HasSubstr("scd"));
  expect_idle();
}

TEST_F(ScdPairTest, an_artifact_that_misses_max_kl_or_the_consumer_is_refused_at_start) {
  auto code_of = [this](const ChangeDecode& change) {
    try {
      start_decode([&](DecodeConfig& config) {
        use_scd(config);
        change(config);
      });
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::kUnknown;
  };
  EXPECT_EQ(code_of([](DecodeConfig& config) { config.codec.max_kl = 0.1; }), ErrorCode::kFailedPrecondition);
  EXPECT_EQ(code_of([this](DecodeConfig& config) { config.model.directory = tuned_model(); }), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace scd::testing
