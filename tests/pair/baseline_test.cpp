// droidspeak and lora_delta through both servers, where they lose nothing but the rounding to BF16.
#include <gmock/gmock.h>

#include "artifact_models.h"
#include "common/model/lora.h"
#include "pair.h"
#include "tests/unit/model/adapter_files.h"

namespace scd::testing {
namespace {

using ::testing::HasSubstr;

class BaselinePairTest : public PairTest {
 protected:
  std::filesystem::path artifact() const { return root() / "baseline"; }
  std::filesystem::path adapter() const { return root() / "adapter"; }
  int32_t layers() { return codec_model(base_model()).layers; }

  void write(CodecId codec, const ModelIdentity& consumer, ArtifactEncoder encoder, ArtifactDecoder decoder) {
    std::filesystem::remove_all(artifact());
    encoder.codec = decoder.codec = codec;
    encoder.producer = decoder.producer = model_identity(base_model());
    encoder.model = decoder.model = decoder.producer_model = codec_model(base_model());
    encoder.fitted_with = consumer.weights;
    decoder.consumer = consumer;
    decoder.prediction = {.bytes_per_token = 512, .ratio_to_bf16 = 1, .kl = 0.01};
    write_artifact(artifact(), encoder, decoder);
  }

  void write_droidspeak(const LayerPlan& plan) {
    ArtifactEncoder encoder;
    ArtifactDecoder decoder;
    encoder.plan = decoder.plan = plan;
    write(CodecId::kDroidSpeak, model_identity(base_model()), std::move(encoder), std::move(decoder));
  }

  // An adapter of the last layer: what enters that layer does not drift.
  void write_lora_delta() {
    const int32_t last = layers() - 1;
    write_key_value_adapter(base_model(), adapter(), std::span(&last, 1));
    const LoraAdapter lora(adapter());
    const CodecModel model = codec_model(base_model());
    ArtifactEncoder encoder;
    ArtifactDecoder decoder;
    encoder.lora.resize(static_cast<size_t>(model.layers));
    decoder.lora.resize(encoder.lora.size());
    const auto take = [&](const char* module, DenseMatrix& down, DenseMatrix& up) {
      const auto factors =
          lora.factors("model.layers." + std::to_string(last) + ".self_attn." + module, model.kv_width(), model.hidden);
      down = DenseMatrix(factors->rank, model.hidden);
      down.values = factors->a;
      up = DenseMatrix(factors->rank, model.kv_width());
      for (int64_t row = 0; row < up.columns; ++row) {
        for (int64_t r = 0; r < up.rows; ++r) {
          up.at(r, row) = factors->scale * factors->b[static_cast<size_t>(row * up.rows + r)];
        }
      }
    };
    take("k_proj", encoder.lora.back().key, decoder.lora.back().key);
    take("v_proj", encoder.lora.back().value, decoder.lora.back().value);
    write(CodecId::kLoraDelta, model_identity(base_model(), adapter()), std::move(encoder), std::move(decoder));
  }

  void start_pair(CodecMode mode, const std::filesystem::path& adapter_of_consumer = {}) {
    start_prefill([this](PrefillConfig& config) { config.codec.artifact = artifact(); });
    start_decode([&](DecodeConfig& config) {
      config.codec.mode = mode;
      config.codec.artifact = artifact();
      config.model.adapter = adapter_of_consumer;
    });
  }

  // The log-probability of the first token.
  float first_logprob(const v1::CompleteResponse& response) { return response.logprobs(0).top(0).logprob(); }
};

// From fresh codes and from stored ones, which come in another order.
TEST_F(BaselinePairTest, droidspeak_rebuilds_the_consumers_state_wherever_its_span_lies) {
  const int32_t last = layers() - 1;
  ASSERT_GE(last, 3);
  const LayerPlan middle{1, {{1, 1}, {2, last - 2, true}, {last, 1}}, false};
  const LayerPlan first{1, {{1, last, true}}, false};
  LayerPlan at_the_end = layer_by_layer(last + 1, 1);
  at_the_end.units.back().residual = true;
  for (const LayerPlan& plan : {middle, first, at_the_end}) {
    write_droidspeak(plan);
    start_pair(CodecMode::kDroidSpeak);
    auto request = greedy_request(300);
    request.set_logprobs(5);
    const auto alone = complete_alone(request);
    for (const bool stored : {false, true}) {
      const auto coded = complete(request);
      EXPECT_EQ(coded.finish().transfer().codec(), v1::CODEC_DROIDSPEAK);
      EXPECT_EQ(coded.finish().transfer().fallback_reason(), "") << to_string(plan);
      EXPECT_EQ(coded.finish().transfer().cached_tokens() > 0, stored) << to_string(plan);
      EXPECT_NEAR(first_logprob(coded), first_logprob(alone), 0.05) << to_string(plan);
    }
    expect_idle();
  }
}

TEST_F(BaselinePairTest, lora_delta_adds_the_adapters_term_to_the_bases_cache) {
  write_lora_delta();
  start_pair(CodecMode::kLoraDelta, adapter());
  auto request = greedy_request(300);
  request.set_logprobs(5);
  const auto alone = complete_alone(request);
  const auto coded = complete(request);
  EXPECT_EQ(coded.finish().transfer().codec(), v1::CODEC_LORA_DELTA);
  EXPECT_EQ(coded.finish().transfer().fallback_reason(), "");
  EXPECT_NEAR(first_logprob(coded), first_logprob(alone), 0.05);
  request.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RAW);
  const auto raw = complete(request);
  EXPECT_LT(raw.finish().transfer().wire_bytes(), coded.finish().transfer().wire_bytes());
  expect_idle();
}

TEST_F(BaselinePairTest, a_consumer_without_the_adapter_has_no_decoder) {
  write_lora_delta();
  try {
    start_pair(CodecMode::kLoraDelta);
    FAIL() << "started";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("no decoder for the consumer"));
  }
}

}  // namespace
}  // namespace scd::testing
