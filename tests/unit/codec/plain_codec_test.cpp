#include "common/codec/plain_codec.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "common/codec/registry.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using testing::SampleChunk;
using testing::small_model;

ByteBuffer encode(CodecId id, const CodecModel& producer, const SampleChunk& sample) {
  ByteBuffer payload;
  make_encoder(id, producer, nullptr)->encode(sample.chunk, {}, payload);
  return payload;
}

float as_bf16(float value) { return kernels::to_float(kernels::to_bfloat16(value)); }

TEST(PlainCodec, RawAndLosslessHandOverBfloat16BitForBitWhereBothRotateAlike) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 1, 48, 33, 7);
  for (const CodecId id : {CodecId::kRaw, CodecId::kLossless}) {
    const ByteBuffer payload = encode(id, model, sample);
    const auto decoder = make_decoder(id, model, model, nullptr);
    EXPECT_LE(payload.size(), decoder->max_payload_bytes(33));
    DecodedLayer out;
    ASSERT_TRUE(decoder->decode(sample.place(), payload, out).ok());
    for (size_t i = 0; i < out.keys.size(); ++i) {
      ASSERT_EQ(out.keys[i], as_bf16(sample.keys.values[i]));
      ASSERT_EQ(out.values[i], as_bf16(sample.values.values[i]));
    }
  }
}

TEST(PlainCodec, RotatesForTheConsumerWhereRopeDiffers) {
  const CodecModel producer = small_model(10000.0);
  const CodecModel consumer = small_model(1000000.0);
  const DenseMatrix unrotated = testing::random_matrix(40, producer.kv_width(), 3);
  SampleChunk sample(producer, 0, 112, 40, 3);
  sample.keys = unrotated;
  rotate_chunk(sample.keys.view(), producer.head_dim, 112, producer.rope, kernels::RopeDirection::kRotate);
  DenseMatrix expected = unrotated;
  rotate_chunk(expected.view(), consumer.head_dim, 112, consumer.rope, kernels::RopeDirection::kRotate);

  const struct {
    CodecId id;
    float tolerance;
  } cases[] = {{CodecId::kRaw, 0.03f}, {CodecId::kLossless, 0.03f}, {CodecId::kInt8, 0.04f}, {CodecId::kInt4, 0.6f}};
  for (const auto& [id, tolerance] : cases) {
    const ByteBuffer payload = encode(id, producer, sample);
    DecodedLayer out;
    ASSERT_TRUE(make_decoder(id, producer, consumer, nullptr)->decode(sample.place(), payload, out).ok());
    for (size_t i = 0; i < out.keys.size(); ++i) {
      ASSERT_NEAR(out.keys[i], expected.values[i], tolerance) << to_string(id) << " " << i;
      ASSERT_NEAR(out.values[i], sample.values.values[i], tolerance) << to_string(id) << " " << i;
    }
  }
}

TEST(PlainCodec, LosslessIsAThirdShorterOnNumbersAsCachesHoldThem) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 1, 0, 1024, 7);
  const double raw = static_cast<double>(encode(CodecId::kRaw, model, sample).size());
  EXPECT_GT(raw / static_cast<double>(encode(CodecId::kLossless, model, sample).size()), 1.3);
}

TEST(PlainCodec, LosslessNeverExceedsItsBoundAndStaysExactOnNoise) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 1, 0, 64, 7);
  std::mt19937 random(3);
  for (DenseMatrix* matrix : {&sample.keys, &sample.values}) {
    for (float& value : matrix->values) {
      value = std::ldexp(1.0f + static_cast<float>(random() % 128) / 128, static_cast<int>(random() % 250) - 125);
    }
  }
  const auto decoder = make_decoder(CodecId::kLossless, model, model, nullptr);
  const ByteBuffer payload = encode(CodecId::kLossless, model, sample);
  EXPECT_LE(payload.size(), decoder->max_payload_bytes(64));
  DecodedLayer out;
  ASSERT_TRUE(decoder->decode(sample.place(), payload, out).ok());
  EXPECT_EQ(out.keys, sample.keys.values);
  EXPECT_EQ(out.values, sample.values.values);
}

TEST(PlainCodec, IntegersStayWithinHalfAStepOfTheirGroup) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 1, 0, 100, 11);
  for (int64_t row = 0; row < 100; ++row) sample.keys.at(row, 3) += 300.0f;  // a channel far from the others
  for (const auto& [id, levels] : {std::pair(CodecId::kInt8, 255.0f), std::pair(CodecId::kInt4, 15.0f)}) {
    const ByteBuffer payload = encode(id, model, sample);
    const auto decoder = make_decoder(id, model, model, nullptr);
    EXPECT_EQ(payload.size(), decoder->max_payload_bytes(100));
    DecodedLayer out;
    ASSERT_TRUE(decoder->decode(sample.place(), payload, out).ok());
    for (int64_t row = 0; row < 100; ++row) {
      for (int64_t head = 0; head < model.kv_heads; ++head) {
        const float* values = sample.values.view().row<float>(row) + head * model.head_dim;
        const auto [low, high] = std::minmax_element(values, values + model.head_dim);
        const float* decoded = out.values.data() + row * model.kv_width() + head * model.head_dim;
        for (int64_t i = 0; i < model.head_dim; ++i) {
          ASSERT_NEAR(decoded[i], values[i], 0.51f * (*high - *low) / levels + 0.002f * std::abs(*high));
        }
      }
    }
  }
}

TEST(PlainCodec, RefusesBytesThatAreNoSuchPayload) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 1, 48, 33, 7);
  for (const CodecId id : {CodecId::kRaw, CodecId::kLossless, CodecId::kInt8, CodecId::kInt4}) {
    const ByteBuffer payload = encode(id, model, sample);
    const auto decoder = make_decoder(id, model, model, nullptr);
    DecodedLayer out;
    ASSERT_TRUE(decoder->decode(sample.place(), payload, out).ok());
    for (size_t length = 0; length < payload.size(); length += 7) {
      const auto cut = std::span<const std::byte>(payload).first(length);
      EXPECT_EQ(decoder->decode(sample.place(), cut, out).failure().code, ErrorCode::kDataLoss) << to_string(id);
    }
    ByteBuffer longer = payload;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(decoder->decode(sample.place(), longer, out).ok()) << to_string(id);
    for (const CodecId other : {CodecId::kRaw, CodecId::kLossless, CodecId::kInt8, CodecId::kInt4}) {
      if (other == id) continue;
      EXPECT_FALSE(make_decoder(other, model, model, nullptr)->decode(sample.place(), payload, out).ok());
    }
  }
}

TEST(PlainCodec, IsNamedByShapeAndRope) {
  EXPECT_EQ(plain_encoder_id("raw", small_model()), plain_encoder_id("raw", small_model()));
  EXPECT_NE(plain_encoder_id("raw", small_model()), plain_encoder_id("raw", small_model(500000.0)));
  CodecModel deeper = small_model();
  deeper.layers = 4;
  EXPECT_NE(plain_encoder_id("raw", small_model()), plain_encoder_id("raw", deeper));
}

TEST(PlainCodec, RefusesAConsumerOfAnotherShapeByName) {
  CodecModel consumer = small_model();
  consumer.kv_heads = 4;
  try {
    (void)make_decoder(CodecId::kRaw, small_model(), consumer, nullptr);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr("kv_heads 2, consumer 4"));
  }
}

TEST(PlainCodec, EncodesTheSameChunkToTheSameBytesAndAppends) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 2, 0, 5, 9);
  const auto encoder = make_encoder(CodecId::kLossless, model, nullptr);
  ByteBuffer once;
  encoder->encode(sample.chunk, {}, once);
  ByteBuffer twice;
  encoder->encode(sample.chunk, {}, twice);
  encoder->encode(sample.chunk, {}, twice);
  ASSERT_EQ(twice.size(), 2 * once.size());
  EXPECT_TRUE(std::equal(once.begin(), once.end(), twice.begin()));
  EXPECT_TRUE(std::equal(once.begin(), once.end(), twice.begin() + static_cast<std::ptrdiff_t>(once.size())));
}

TEST(Payload, RoundsToBfloat16AsTheKernelsDo) {
  const std::vector<float> values = {0.0f, -0.0f, 1.0f, 1.00390625f, 1.01171875f, -3.14159f, 1e-40f, 3.38e38f};
  ByteBuffer bytes;
  append_bf16(values, bytes);
  std::vector<float> back(values.size());
  ASSERT_TRUE(read_bf16(bytes, back));
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(back[i], as_bf16(values[i])) << values[i];
}

}  // namespace
}  // namespace scd
