#include "common/codec/scd_codec.h"

#include <gmock/gmock.h>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using testing::SampleChunk;
using testing::small_model;

ByteBuffer encode(const ScdEncoder& encoder, const SampleChunk& sample, const RankCaps& caps = {}) {
  ByteBuffer payload;
  encoder.encode(sample.chunk, caps, payload);
  return payload;
}

TEST(ScdCodec, IdentityMapsGiveTheCacheBackWithinBfloat16) {
  const CodecModel model = small_model();
  const DenseMatrix identity = testing::identity_matrix(model.head_dim);
  const ScdEncoder encoder(model, std::vector<ScdLayerEncoder>(3, {.key = identity, .value = identity, .hidden = {}}),
                           {});
  const ScdDecoder decoder(model,
                           std::vector<ScdLayerDecoder>(3, {.key = identity, .value = identity, .predictor = {}}), {});
  SampleChunk sample(model, 2, 64, 33, 5);
  DecodedLayer out;
  ASSERT_TRUE(decoder.decode(sample.place(), encode(encoder, sample), out).ok());
  EXPECT_EQ(out.kind, DecodedKind::kKeysValues);
  for (size_t i = 0; i < out.keys.size(); ++i) {
    ASSERT_NEAR(out.keys[i], sample.keys.values[i], 0.03f);
    ASSERT_NEAR(out.values[i], sample.values.values[i], 0.02f);
  }
}

TEST(ScdCodec, ChangesTheRotationFromProducerToConsumer) {
  const CodecModel producer = small_model(10000.0);
  const CodecModel consumer = small_model(1000000.0);
  const DenseMatrix identity = testing::identity_matrix(producer.head_dim);
  const ScdEncoder encoder(producer,
                           std::vector<ScdLayerEncoder>(3, {.key = identity, .value = identity, .hidden = {}}), {});
  const ScdDecoder decoder(consumer,
                           std::vector<ScdLayerDecoder>(3, {.key = identity, .value = identity, .predictor = {}}), {});
  SampleChunk sample(producer, 0, 100, 7, 5);
  DenseMatrix expected = sample.keys;
  rotate_chunk(expected.view(), 8, 100, producer.rope, kernels::RopeDirection::kUnrotate);
  rotate_chunk(expected.view(), 8, 100, consumer.rope, kernels::RopeDirection::kRotate);
  DecodedLayer out;
  ASSERT_TRUE(decoder.decode(sample.place(), encode(encoder, sample), out).ok());
  for (size_t i = 0; i < out.keys.size(); ++i) ASSERT_NEAR(out.keys[i], expected.values[i], 0.03f);
}

TEST(ScdCodec, PatchPredictsTheAttentionInput) {
  const CodecModel model = small_model();
  const ScdEncoder encoder(model, testing::sample_encoder_layers(model), {});
  const std::vector<ScdLayerDecoder> layers = testing::sample_decoder_layers(model);
  const ScdDecoder decoder(model, layers, {});
  EXPECT_FALSE(encoder.needs_attention_input(0));
  ASSERT_TRUE(encoder.needs_attention_input(1));
  SampleChunk sample(model, 1, 16, 9, 6);
  DecodedLayer out;
  ASSERT_TRUE(decoder.decode(sample.place(), encode(encoder, sample), out).ok());
  ASSERT_EQ(out.kind, DecodedKind::kAttentionInput);
  EXPECT_TRUE(out.keys.empty());

  const DenseMatrix map = testing::sample_encoder_layers(model)[1].hidden;
  const ScdPredictor& predictor = layers[1].predictor;
  for (int64_t token = 0; token < 9; ++token) {
    std::vector<double> code(12);
    for (int64_t r = 0; r < 12; ++r) {
      for (int64_t c = 0; c < model.hidden; ++c) code[size_t(r)] += map.at(r, c) * sample.attention_input.at(token, c);
      code[size_t(r)] = kernels::to_float(kernels::to_bfloat16(static_cast<float>(code[size_t(r)])));
    }
    std::vector<double> inner(5);
    for (int64_t w = 0; w < 5; ++w) {
      double sum = predictor.network.input_bias[size_t(w)];
      for (int64_t r = 0; r < 12; ++r) sum += code[size_t(r)] * predictor.network.input.at(r, w);
      inner[size_t(w)] = sum / (1.0 + std::exp(-sum));
    }
    for (int64_t c = 0; c < model.hidden; ++c) {
      double expected = predictor.bias[size_t(c)];
      for (int64_t r = 0; r < 12; ++r) expected += code[size_t(r)] * predictor.linear.at(r, c);
      for (int64_t w = 0; w < 5; ++w) expected += inner[size_t(w)] * predictor.network.output.at(w, c);
      ASSERT_NEAR(out.hidden[size_t(token * model.hidden + c)], expected, 0.01 * (1 + std::abs(expected)));
    }
  }
}

TEST(ScdCodec, ARankCapIsAPrefixOfEachBlock) {
  const CodecModel model = small_model();
  const ScdEncoder encoder(model, testing::sample_encoder_layers(model), {});
  SampleChunk sample(model, 0, 0, 21, 8);
  const auto full = encode(encoder, sample);
  const auto capped = encode(encoder, sample, {.key = 3, .value = 5});
  const size_t component = 21 * 2 * 2;  // tokens x heads x bytes
  ASSERT_EQ(full.size(), kPayloadHeaderBytes + 16 * component);
  ASSERT_EQ(capped.size(), kPayloadHeaderBytes + 8 * component);
  const auto equal = [&](size_t in_full, size_t in_capped, size_t bytes) {
    return std::equal(capped.begin() + std::ptrdiff_t(in_capped), capped.begin() + std::ptrdiff_t(in_capped + bytes),
                      full.begin() + std::ptrdiff_t(in_full));
  };
  EXPECT_TRUE(equal(kPayloadHeaderBytes, kPayloadHeaderBytes, 3 * component));
  EXPECT_TRUE(equal(kPayloadHeaderBytes + 8 * component, kPayloadHeaderBytes + 3 * component, 5 * component));
  const ScdDecoder decoder(model, testing::sample_decoder_layers(model), {});
  DecodedLayer out;
  EXPECT_TRUE(decoder.decode(sample.place(), capped, out).ok());
  EXPECT_LE(full.size(), decoder.max_payload_bytes(21));

  SampleChunk patched(model, 1, 0, 21, 8);
  const auto full_patch = encode(encoder, patched);
  const auto capped_patch = encode(encoder, patched, {.hidden = 4});
  EXPECT_TRUE(std::equal(capped_patch.begin() + kPayloadHeaderBytes, capped_patch.end(),
                         full_patch.begin() + kPayloadHeaderBytes));
  EXPECT_TRUE(decoder.decode(patched.place(), capped_patch, out).ok());
}

class BrokenScdPayload : public ::testing::Test {
 protected:
  void expect_data_loss(const PayloadPlace& place, std::span<const std::byte> payload, const std::string& what) {
    DecodedLayer out;
    const auto result = decoder_.decode(place, payload, out);
    ASSERT_FALSE(result.ok()) << what;
    EXPECT_EQ(result.failure().code, ErrorCode::kDataLoss);
    EXPECT_THAT(result.failure().message, HasSubstr(what));
  }

  const CodecModel model_ = small_model();
  const ScdEncoder encoder_{model_, testing::sample_encoder_layers(model_), {}};
  const ScdDecoder decoder_{model_, testing::sample_decoder_layers(model_), {}};
  SampleChunk sample_{model_, 0, 32, 17, 4};
};

TEST_F(BrokenScdPayload, IsNamedAndNeverRead) {
  const auto sound = encode(encoder_, sample_);
  const PayloadPlace place = sample_.place();
  expect_data_loss(place, {}, "shorter than its header");
  expect_data_loss(place, std::span(sound).first(7), "shorter than its header");
  expect_data_loss(place, std::span(sound).first(sound.size() - 1), "bytes of codes, not");
  auto longer = sound;
  longer.push_back(std::byte{0});
  expect_data_loss(place, longer, "bytes of codes, not");

  const auto with = [&](size_t at, uint8_t value) {
    auto changed = sound;
    changed[at] = static_cast<std::byte>(value);
    return changed;
  };
  expect_data_loss(place, with(0, 0), "unknown kind 0");
  expect_data_loss(place, with(0, 99), "unknown kind 99");
  expect_data_loss(place, with(0, uint8_t(PayloadKind::kRaw)), "not a Reuse payload");
  expect_data_loss(place, with(0, uint8_t(PayloadKind::kScdPatch)), "not a Reuse payload");
  expect_data_loss(place, with(1, 1), "version 1");
  expect_data_loss(place, with(2, 18), "its header says 18 tokens");
  expect_data_loss(place, with(4, 0), "ranks 0 and 8");
  expect_data_loss(place, with(4, 9), "ranks 9 and 8");
  expect_data_loss(place, with(7, 255), "ranks 8 and 65288");
  auto infinite = with(kPayloadHeaderBytes, 0x80);
  infinite[kPayloadHeaderBytes + 1] = std::byte{0x7F};
  expect_data_loss(place, infinite, "not finite");
  expect_data_loss({1, 32, 17}, sound, "not a Patch payload");
  expect_data_loss({-1, 32, 17}, sound, "3 layers");
  expect_data_loss({3, 32, 17}, sound, "3 layers");
  expect_data_loss({0, 32, 0}, sound, "0 tokens");
  expect_data_loss({0, 32, int64_t{1} << 40}, sound, "a payload holds");
  expect_data_loss({0, -1, 17}, sound, "positions out of range");
  expect_data_loss({0, INT32_MAX, 17}, sound, "positions out of range");
}

TEST(ScdCodec, MapsThatDoNotFitTheModelAreRefusedByLayer) {
  const CodecModel model = small_model();
  auto layers = testing::sample_encoder_layers(model);
  layers[2].value = testing::random_matrix(8, 7, 1);
  try {
    ScdEncoder(model, layers, {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("value encoder of layer 2"));
  }
  auto decoders = testing::sample_decoder_layers(model);
  decoders[1].predictor.bias.pop_back();
  EXPECT_THROW(ScdDecoder(model, decoders, {}), Error);
  decoders.pop_back();
  EXPECT_THROW(ScdDecoder(model, decoders, {}), Error);
}

}  // namespace
}  // namespace scd
