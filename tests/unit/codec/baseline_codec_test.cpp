// droidspeak and lora_delta: what comes out of what went in, and bytes that are refused.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "common/codec/droidspeak_codec.h"
#include "common/codec/key_rotation.h"
#include "common/codec/lora_delta_codec.h"
#include "common/codec/payload.h"
#include "common/codec/rd/rd_codec.h"
#include "tests/unit/codec/baseline_samples.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using testing::sample_droidspeak_plan;
using testing::sample_lora;
using testing::SampleChunk;
using testing::small_model;

float as_bf16(float value) { return kernels::to_float(kernels::to_bfloat16(value)); }

ByteBuffer payload_of(const Encoder& encoder, const SampleChunk& sample) {
  ByteBuffer payload;
  encoder.encode(sample.chunk, {}, payload);
  return payload;
}

void expect_refused(const Decoder& decoder, const SampleChunk& sample, std::span<const std::byte> payload,
                    const std::string& what) {
  DecodedLayer out;
  const auto result = decoder.decode(sample.place(), payload, out);
  ASSERT_FALSE(result.ok()) << what;
  EXPECT_EQ(result.failure().code, ErrorCode::kDataLoss);
  EXPECT_THAT(result.failure().message, HasSubstr(what));
}

// Every payload of the right kind, damaged.
void expect_hostile_bytes_refused(const Decoder& decoder, const SampleChunk& sample, const ByteBuffer& sound) {
  const auto damaged = [&](const std::function<void(ByteBuffer&)>& damage) {
    ByteBuffer payload = sound;
    damage(payload);
    return payload;
  };
  expect_refused(decoder, sample, {}, "shorter than its header");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p.pop_back(); }), "bytes, not");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p.push_back({}); }), "bytes, not");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p[0] = std::byte{7}; }), "not a payload of");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p[0] = std::byte{99}; }), "unknown kind");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p[2] ^= std::byte{1}; }), "its header says");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p[4] ^= std::byte{1}; }), "not a payload of");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p[6] ^= std::byte{1}; }), "not a payload of");
  expect_refused(decoder, sample, damaged([](ByteBuffer& p) { p[p.size() - 1] = p[p.size() - 2] = std::byte{0xFF}; }),
                 "not finite");
}

TEST(LayerPlan, AResidualStreamThatIsSentAsItIsNeedsNoAnchor) {
  const LayerPlan plan = sample_droidspeak_plan();
  EXPECT_EQ(plan_problem(plan, 3), "");
  EXPECT_EQ(plan.anchor_of(1), -1);
  LayerPlan predicted{0, {{0, 1}, {1, 2, true}}};
  EXPECT_THAT(plan_problem(predicted, 3), HasSubstr("exact layers before it"));
  predicted.predicted = false;
  EXPECT_EQ(plan_problem(predicted, 3), "");
  EXPECT_THAT(rd_plan_problem(predicted, 3), HasSubstr("codec rd"));
}

TEST(DroidSpeak, KeysAndValuesAreThoseOfRawAndTheSpanIsItsResidualStream) {
  const CodecModel a = small_model(10000.0), b = small_model(1000000.0);
  const DroidSpeakEncoder encoder(a, sample_droidspeak_plan(), {});
  const DroidSpeakDecoder decoder(a, b, sample_droidspeak_plan(), {});
  EXPECT_FALSE(encoder.needs_residual(1));
  EXPECT_TRUE(encoder.needs_residual(2));
  EXPECT_FALSE(decoder.needs_anchor(2));
  EXPECT_EQ(decoder.calibrated_exact_layers(), 1);

  const SampleChunk keys_values(a, 1, 48, 5, 7);
  const ByteBuffer raw = payload_of(PlainEncoder(std::make_unique<RawBody>(a.kv_width()), a), keys_values);
  EXPECT_EQ(payload_of(encoder, keys_values), raw);
  DecodedLayer out, expected;
  ASSERT_TRUE(decoder.decode(keys_values.place(), raw, out).ok());
  const PlainDecoder plain(std::make_unique<RawBody>(a.kv_width()), a, b);
  ASSERT_TRUE(plain.decode(keys_values.place(), raw, expected).ok());
  EXPECT_EQ(out.keys, expected.keys);
  EXPECT_EQ(out.values, expected.values);

  const SampleChunk span(a, 2, 48, 5, 9);
  const ByteBuffer payload = payload_of(encoder, span);
  EXPECT_EQ(payload.size(), kPayloadHeaderBytes + 2U * 5 * 24);
  EXPECT_LE(std::max(payload.size(), raw.size()), decoder.max_payload_bytes(5));
  ASSERT_TRUE(decoder.decode(span.place(), payload, out).ok());
  ASSERT_EQ(out.kind, DecodedKind::kResidual);
  ASSERT_EQ(out.hidden.size(), span.residual.values.size());
  for (size_t i = 0; i < out.hidden.size(); ++i) ASSERT_EQ(out.hidden[i], as_bf16(span.residual.values[i]));
  expect_hostile_bytes_refused(decoder, span, payload);
  expect_refused(decoder, span, raw, "not a payload of a residual stream");
  expect_refused(decoder, keys_values, payload, "not a payload of codec raw");
  expect_refused(decoder, SampleChunk(a, 0, 48, 5, 9), raw, "no unit begins there");
}

TEST(DroidSpeak, OtherPlansAndConsumersAreRefused) {
  const CodecModel model = small_model();
  EXPECT_THROW(DroidSpeakEncoder(model, {1, {{1, 2}}, false}, {}), Error);         // two layers in one unit
  EXPECT_THROW(DroidSpeakEncoder(model, {1, {{1, 1}, {2, 1}}, true}, {}), Error);  // predicted
  EXPECT_THROW(DroidSpeakEncoder(model, {1, {{1, 1}}, false}, {}), Error);         // a layer is missing
  CodecModel wider = model;
  wider.hidden = 32;
  EXPECT_THROW(DroidSpeakDecoder(wider, model, sample_droidspeak_plan(), {}), Error);
  const auto other = DroidSpeakEncoder(model, sample_droidspeak_plan(), {}).plan(0);
  ASSERT_FALSE(other.ok());
  EXPECT_THAT(other.failure().message, HasSubstr("codec droidspeak was calibrated for consumers that compute the"));
}

// k' = k + scale B A x before RoPE, v' = v + scale B A x, in double.
TEST(LoraDelta, AddsTheAdaptersTermToValuesAndToKeysBeforeRope) {
  const CodecModel model = small_model();
  const auto [down, up] = sample_lora(model);
  const LoraDeltaEncoder encoder(model, down, {});
  const LoraDeltaDecoder decoder(model, model, up, {});
  SampleChunk sample(model, 1, 112, 6, 3);
  const DenseMatrix unrotated = sample.keys;
  rotate_chunk(sample.keys.view(), model.head_dim, 112, model.rope, kernels::RopeDirection::kRotate);
  EXPECT_TRUE(encoder.needs_attention_input(1));
  EXPECT_FALSE(encoder.needs_attention_input(0));
  const ByteBuffer payload = payload_of(encoder, sample);
  EXPECT_EQ(payload.size(), decoder.max_payload_bytes(6));
  DecodedLayer out;
  ASSERT_TRUE(decoder.decode(sample.place(), payload, out).ok());
  rotate_chunk(kernels::matrix(out.keys.data(), 6, model.kv_width()), model.head_dim, 112, model.rope,
               kernels::RopeDirection::kUnrotate);
  const auto delta = [&](const DenseMatrix& a, const DenseMatrix& b, int64_t token, int64_t column) {
    double sum = 0;
    for (int64_t r = 0; r < a.rows; ++r) {
      double code = 0;
      for (int64_t i = 0; i < a.columns; ++i) code += double{a.at(r, i)} * sample.attention_input.at(token, i);
      sum += code * b.at(r, column);
    }
    return sum;
  };
  for (int64_t token = 0; token < 6; ++token) {
    for (int64_t c = 0; c < model.kv_width(); ++c) {
      const auto at = static_cast<size_t>(token * model.kv_width() + c);
      const double key = unrotated.at(token, c) + delta(down[1].key, up[1].key, token, c);
      const double value = sample.values.at(token, c) + delta(down[1].value, up[1].value, token, c);
      ASSERT_NEAR(out.keys[at], key, 0.05);
      ASSERT_NEAR(out.values[at], value, 0.05);
    }
  }
  expect_hostile_bytes_refused(decoder, sample, payload);
}

TEST(LoraDelta, LayersThatTheAdapterLeavesAloneAreRawToTheBit) {
  const CodecModel model = small_model();
  const auto [down, up] = sample_lora(model);
  const LoraDeltaEncoder encoder(model, down, {});
  const LoraDeltaDecoder decoder(model, model, up, {});
  const SampleChunk untouched(model, 0, 16, 3, 5), values_only(model, 2, 16, 3, 5);
  const ByteBuffer raw = payload_of(encoder, untouched);
  EXPECT_EQ(raw, payload_of(PlainEncoder(std::make_unique<RawBody>(model.kv_width()), model), untouched));
  for (const SampleChunk* sample : {&untouched, &values_only}) {
    DecodedLayer out;
    ASSERT_TRUE(decoder.decode(sample->place(), payload_of(encoder, *sample), out).ok());
    for (size_t i = 0; i < out.keys.size(); ++i) ASSERT_EQ(out.keys[i], as_bf16(sample->keys.values[i]));
  }
  expect_refused(decoder, values_only, raw, "with ranks 0 and 2");
  expect_refused(decoder, SampleChunk(model, 3, 16, 3, 5), raw, "the model has 3 layers");
  expect_hostile_bytes_refused(decoder, untouched, raw);
}

TEST(LoraDelta, FactorsThatDoNotFitAreRefused) {
  const CodecModel model = small_model();
  auto [down, up] = sample_lora(model);
  down[1].key = testing::random_matrix(2, model.hidden + 1, 1);
  EXPECT_THROW(LoraDeltaEncoder(model, down, {}), Error);
  down.pop_back();
  EXPECT_THROW(LoraDeltaEncoder(model, down, {}), Error);
  up[2].value = testing::random_matrix(2, model.hidden, 1);
  EXPECT_THROW(LoraDeltaDecoder(model, model, up, {}), Error);
}

}  // namespace
}  // namespace scd
