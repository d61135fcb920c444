#include "common/codec/raw.h"

#include <gmock/gmock.h>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using testing::SampleChunk;
using testing::small_model;

float as_bf16(float value) { return kernels::to_float(kernels::to_bfloat16(value)); }

TEST(RawCodec, HandsOverBfloat16BitForBitWhereBothRotateAlike) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 1, 48, 33, 7);
  ByteBuffer payload;
  RawEncoder(model).encode(sample.chunk, {}, payload);
  const RawDecoder decoder(model, model);
  EXPECT_EQ(payload.size(), decoder.max_payload_bytes(33));
  DecodedLayer out;
  ASSERT_TRUE(decoder.decode(sample.place(), payload, out).ok());
  for (size_t i = 0; i < out.keys.size(); ++i) {
    ASSERT_EQ(out.keys[i], as_bf16(sample.keys.values[i]));
    ASSERT_EQ(out.values[i], as_bf16(sample.values.values[i]));
  }
}

TEST(RawCodec, RotatesForTheConsumerWhereRopeDiffers) {
  const CodecModel producer = small_model(10000.0);
  const CodecModel consumer = small_model(1000000.0);
  const DenseMatrix unrotated = testing::random_matrix(40, producer.kv_width(), 3);
  SampleChunk sample(producer, 0, 112, 40, 3);
  sample.keys = unrotated;
  rotate_chunk(sample.keys.view(), producer.head_dim, 112, producer.rope, kernels::RopeDirection::kRotate);
  DenseMatrix expected = unrotated;
  rotate_chunk(expected.view(), consumer.head_dim, 112, consumer.rope, kernels::RopeDirection::kRotate);

  ByteBuffer payload;
  RawEncoder(producer).encode(sample.chunk, {}, payload);
  DecodedLayer out;
  ASSERT_TRUE(RawDecoder(producer, consumer).decode(sample.place(), payload, out).ok());
  for (size_t i = 0; i < out.keys.size(); ++i) ASSERT_NEAR(out.keys[i], expected.values[i], 0.03f) << i;
}

TEST(RawCodec, IsNamedByShapeAndRope) {
  EXPECT_EQ(raw_encoder_id(small_model()), raw_encoder_id(small_model()));
  EXPECT_NE(raw_encoder_id(small_model()), raw_encoder_id(small_model(500000.0)));
  CodecModel deeper = small_model();
  deeper.layers = 4;
  EXPECT_NE(raw_encoder_id(small_model()), raw_encoder_id(deeper));
}

TEST(RawCodec, RefusesAConsumerOfAnotherShapeByName) {
  CodecModel consumer = small_model();
  consumer.kv_heads = 4;
  try {
    RawDecoder(small_model(), consumer);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr("kv_heads 2, consumer 4"));
  }
}

TEST(RawCodec, EncodesTheSameChunkToTheSameBytesAndAppends) {
  const CodecModel model = small_model();
  SampleChunk sample(model, 2, 0, 5, 9);
  ByteBuffer once;
  RawEncoder(model).encode(sample.chunk, {}, once);
  ByteBuffer twice;
  RawEncoder(model).encode(sample.chunk, {}, twice);
  RawEncoder(model).encode(sample.chunk, {}, twice);
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
