#include <gmock/gmock.h>

#include <Eigen/Core>
#include <cmath>
#include <random>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "common/codec/rd/rd_codec.h"
#include "kernels/linear.h"
#include "tests/unit/codec/codec_samples.h"
#include "tests/unit/codec/linear_pair.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

using testing::codes_of;
using testing::expected_loss;
using testing::Fitted;
using ::testing::HasSubstr;
using testing::linear_pair;
using testing::LinearPair;
using testing::random_matrix;
using testing::SampleChunk;
using testing::small_model;

// A fitted codec of three layers for a small model, and rows to try it on.
class RdCodec : public ::testing::Test {
 protected:
  RdCodec() {
    const LinearPair pair = linear_pair(4000, 2 * model_.kv_width(), 0.05f, 5);
    const Fitted fitted = fit(pair);
    const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
    std::vector<ComponentSample> samples;
    for (int64_t c = 0; c < codes.rows; ++c) {
      samples.push_back({{codes.view().row<float>(c), static_cast<size_t>(codes.columns)},
                         fitted.deviations[static_cast<size_t>(c)]});
    }
    train_tables(samples, settings_);
    settings_.steps = {0.02f, 0.1f, 0.5f};
    encoder_.plan = decoder_.plan = layer_by_layer(model_.layers, 0);
    for (int32_t layer = 0; layer < model_.layers; ++layer) {
      encoder_.units.push_back(fitted.encoder);
      decoder_.units.push_back(fitted.decoder);
      settings_.deviations.push_back(fitted.deviations);
    }
    encoder_.quantiser = decoder_.quantiser = settings_;
    fitted_ = fitted;
    const LinearPair fresh = linear_pair(64, 2 * model_.kv_width(), 0.05f, 6);
    const int64_t width = model_.kv_width();
    for (int64_t row = 0; row < 64; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        sample_.keys.at(row, i) = fresh.x.at(row, i);
        sample_.values.at(row, i) = fresh.x.at(row, width + i);
      }
    }
    truth_ = fresh.y;
    rotate_chunk(sample_.keys.view(), model_.head_dim, 32, model_.rope, kernels::RopeDirection::kRotate);
  }

  ByteBuffer encode(int32_t level, int32_t cap = 0) const {
    ByteBuffer payload;
    const RankCaps caps{.key = cap, .value = cap, .hidden = 0, .level = level};
    RdEncoder(model_, encoder_, {}).encode(sample_.chunk, caps, payload);
    return payload;
  }
  RdDecoder decoder() const { return {model_, decoder_, {}}; }

  double loss(const DecodedLayer& out) const {
    const int64_t width = model_.kv_width();
    DenseMatrix keys(64, width);
    keys.values = out.keys;
    rotate_chunk(keys.view(), model_.head_dim, 32, model_.rope, kernels::RopeDirection::kUnrotate);
    double sum = 0;
    for (int64_t row = 0; row < 64; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        sum += std::pow(double{keys.at(row, i)} - truth_.at(row, i), 2);
        sum += std::pow(double{out.values[static_cast<size_t>(row * width + i)]} - truth_.at(row, width + i), 2);
      }
    }
    return sum / 64;
  }

  CodecModel model_ = small_model();
  RdEncoderMaps encoder_;
  RdDecoderMaps decoder_;
  RdQuantiserSettings settings_;
  RateFit fitted_;
  SampleChunk sample_{model_, 1, 32, 64, 7};
  DenseMatrix truth_;
};

TEST_F(RdCodec, CoarserLevelsSendLessAndLoseWhatTheFitExpects) {
  size_t bytes = SIZE_MAX;
  for (int32_t level = 0; level < 3; ++level) {
    const ByteBuffer payload = encode(level);
    EXPECT_LT(payload.size(), bytes);
    EXPECT_LE(payload.size(), decoder().max_payload_bytes(64));
    bytes = payload.size();
    DecodedLayer out;
    const auto decoded = decoder().decode(sample_.place(), payload, out);
    ASSERT_TRUE(decoded.ok()) << decoded.failure().message;
    const double expected = expected_loss(fitted_, settings_.steps[static_cast<size_t>(level)]);
    EXPECT_LT(loss(out), 1.5 * expected) << level;
    EXPECT_GT(loss(out), 0.5 * fitted_.unpredictable) << level;
  }
}

// Of a BF16 cache: every level, and what a cap leaves of the codes.
TEST_F(RdCodec, RoundedProductsGiveTheSameWithinWhatBf16Rounds) {
  const RdDecoder rounded(model_, decoder_, {}, kernels::Device::kCpu, kernels::DType::kBF16);
  for (int32_t level = 0; level < 3; ++level) {
    for (const int32_t cap : {0, 3}) {
      const ByteBuffer payload = encode(level, cap);
      DecodedLayer exact, out;
      ASSERT_TRUE(decoder().decode(sample_.place(), payload, exact).ok());
      ASSERT_TRUE(rounded.decode(sample_.place(), payload, out).ok());
      double error = 0, power = 0;
      for (const auto& [a, b] : {std::pair{&exact.keys, &out.keys}, {&exact.values, &out.values}}) {
        ASSERT_EQ(a->size(), b->size());
        for (size_t i = 0; i < a->size(); ++i) {
          error += std::pow((*a)[i] - (*b)[i], 2);
          power += std::pow((*a)[i], 2);
        }
      }
      EXPECT_LT(std::sqrt(error / power), 4e-3) << level << " " << cap;
      EXPECT_GT(error, 0) << "nothing was rounded";
    }
  }
}

// Beside the same codes without it, and on what a cap leaves of them.
TEST_F(RdCodec, ANetworkAddsToWhatTheDecoderGives) {
  RdDecoderMaps with = decoder_;
  const int64_t components = with.units[1].map.rows, outputs = std::ssize(with.units[1].mean);
  with.units[1].network = {random_matrix(components, 6, 81), random_matrix(1, 6, 82).values,
                           random_matrix(6, outputs, 83), random_matrix(1, outputs, 84).values};
  const RdDecoder networked(model_, with, {});
  for (const int32_t half : {0, 3}) {
    const ByteBuffer payload = encode(0, half);
    DecodedLayer plain, out;
    ASSERT_TRUE(decoder().decode(sample_.place(), payload, plain).ok());
    ASSERT_TRUE(networked.decode(sample_.place(), payload, out).ok());
    DenseMatrix codes(static_cast<int64_t>(payload[4]), 64);
    const RdQuantiser quantiser(settings_);
    ASSERT_EQ(quantiser.decode(1, 0, std::span<const std::byte>(payload).subspan(kPayloadHeaderBytes), codes.view()),
              "");
    DenseMatrix added(64, outputs);
    add_network(with.units[1].network, {std::as_const(codes).view()}, added.view());
    const int64_t width = model_.kv_width();
    for (int64_t row = 0; row < 64; ++row) {
      for (int64_t i = 0; i < width; ++i) {
        const auto at = static_cast<size_t>(row * width + i);
        ASSERT_NEAR(out.values[at] - plain.values[at], added.at(row, width + i), 1e-4) << half;
      }
    }
  }
}

// A decoder that looks at the anchor through a basis gives what one with the product of both maps gives.
TEST_F(RdCodec, DirectionsOfTheAnchorAreAFactorOfItsMap) {
  constexpr int64_t kDirections = 3;
  const LayerPlan plan{1, {{1, 1}, {2, 1}}};
  testing::RdSample sample = testing::sample_rd(model_, plan, {0.1f});
  RdDecoderMaps seen = sample.decoder, whole = sample.decoder;
  const int64_t width = rd_state_width(model_, plan.units[0]);
  const DenseMatrix basis = random_matrix(model_.hidden, kDirections, 91), map = random_matrix(kDirections, width, 92);
  seen.units[0].anchor_basis = basis;
  seen.units[0].anchor_map = map;
  kernels::gemm_f32({.a = basis.view(), .b = map.view(), .c = whole.units[0].anchor_map.view()});
  ByteBuffer payload;
  RdEncoder(model_, sample.encoder, {}).encode(sample_.chunk, {}, payload);
  const PayloadPlace place{1, 32, 64, sample_.chunk.anchor};
  for (const kernels::DType precision : {kernels::DType::kF32, kernels::DType::kBF16}) {
    DecodedLayer expected, out;
    ASSERT_TRUE(RdDecoder(model_, whole, {}).decode(place, payload, expected).ok());
    ASSERT_TRUE(RdDecoder(model_, seen, {}, kernels::Device::kCpu, precision).decode(place, payload, out).ok());
    double error = 0, power = 0;
    ASSERT_EQ(out.values.size(), expected.values.size());
    for (size_t i = 0; i < out.values.size(); ++i) {
      error += std::pow(out.values[i] - expected.values[i], 2) + std::pow(out.keys[i] - expected.keys[i], 2);
      power += std::pow(expected.values[i], 2) + std::pow(expected.keys[i], 2);
    }
    EXPECT_LT(std::sqrt(error / power), precision == kernels::DType::kF32 ? 1e-5 : 1e-2);
  }
}

TEST_F(RdCodec, DirectionsThatFitNoAnchorAreRefused) {
  const testing::RdSample sample = testing::sample_rd(model_, {1, {{1, 1}, {2, 1}}}, {0.1f});
  const auto refused = [&](DenseMatrix basis) {
    RdDecoderMaps maps = sample.decoder;
    maps.units[1].anchor_basis = std::move(basis);
    try {
      RdDecoder(model_, maps, {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const char* said = "decoder of the unit from layer 2 on does not fit the model's shape";
  EXPECT_THAT(refused(DenseMatrix(model_.hidden, model_.hidden - 1)), HasSubstr(said));
  EXPECT_THAT(refused(DenseMatrix(model_.hidden + 1, model_.hidden)), HasSubstr(said));
  EXPECT_EQ(refused(DenseMatrix(model_.hidden, model_.hidden)), "accepted");
}

TEST_F(RdCodec, ANetworkOfAnotherShapeIsRefused) {
  RdDecoderMaps with = decoder_;
  const int64_t components = with.units[1].map.rows, outputs = std::ssize(with.units[1].mean);
  with.units[1].network = {DenseMatrix(components + 1, 6), std::vector<float>(6), DenseMatrix(6, outputs),
                           std::vector<float>(static_cast<size_t>(outputs))};
  try {
    RdDecoder(model_, with, {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
    EXPECT_THAT(error.what(), HasSubstr("network of the unit from layer 1 on"));
  }
}

TEST_F(RdCodec, ACapSendsTheMostImportantComponents) {
  DecodedLayer out;
  double before = 1e9;
  for (const int32_t half : {1, 4, 12}) {
    const ByteBuffer payload = encode(0, half);
    ASSERT_TRUE(decoder().decode(sample_.place(), payload, out).ok());
    const double now = loss(out);
    EXPECT_LT(now, before);
    before = now;
  }
}

TEST_F(RdCodec, ValuesFarFromCalibrationEscapeTheirTable) {
  for (float& value : sample_.values.values) value *= 1000.0f;
  const ByteBuffer payload = encode(0);
  DecodedLayer out;
  ASSERT_TRUE(decoder().decode(sample_.place(), payload, out).ok());
  // The same values through the maps of the components sent, without quantisation.
  const int64_t sent = static_cast<int64_t>(payload[4]);
  const DenseMatrix x =
      side_by_side(unrotated_copy(sample_.keys.view(), model_.head_dim, 32, model_.rope).view(), sample_.values.view());
  const DenseMatrix codes = codes_of(encoder_.units[1], x);
  const int64_t width = model_.kv_width();
  for (int64_t row = 0; row < 64; ++row) {
    for (int64_t i = 0; i < width; ++i) {
      float expected = decoder_.units[1].mean[static_cast<size_t>(width + i)];
      for (int64_t c = 0; c < sent; ++c) expected += decoder_.units[1].map.at(c, width + i) * codes.at(c, row);
      ASSERT_NEAR(out.values[static_cast<size_t>(row * width + i)], expected, 0.2f + 1e-4f * std::abs(expected));
    }
  }
}

TEST_F(RdCodec, BrokenPayloadsAreNamed) {
  const ByteBuffer payload = encode(1);
  DecodedLayer out;
  for (size_t length = 0; length < payload.size(); ++length) {
    const auto cut = std::span<const std::byte>(payload).first(length);
    EXPECT_EQ(decoder().decode(sample_.place(), cut, out).failure().code, ErrorCode::kDataLoss) << length;
  }
  ByteBuffer other_level = payload;
  other_level[6] = std::byte{9};
  EXPECT_THAT(decoder().decode(sample_.place(), other_level, out).failure().message, HasSubstr("level 9"));
  ByteBuffer too_many = payload;
  too_many[4] = std::byte{200};
  EXPECT_THAT(decoder().decode(sample_.place(), too_many, out).failure().message, HasSubstr("200 components"));
}

TEST_F(RdCodec, SettingsThatAreNoQuantiserAreRefused) {
  const auto refused = [&](const auto& spoil, const char* what) {
    RdQuantiserSettings settings = settings_;
    spoil(settings);
    try {
      RdQuantiser{settings};
      FAIL() << "accepted: " << what;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition);
      EXPECT_THAT(error.what(), HasSubstr(what));
    }
  };
  refused([](auto& s) { s.steps.clear(); }, "levels");
  refused([](auto& s) { s.steps = {0.2f, 0.1f}; }, "rise");
  refused([](auto& s) { s.deviations[0][0] = 0; }, "fall");
  refused([](auto& s) { s.frequencies.at(3, 5) += 1; }, "sum");
  refused([](auto& s) { s.frequencies.at(3, 0) = 0; }, "escape");
  refused([](auto& s) { s.shifts.pop_back(); }, "tables");
}

TEST(RdQuantiser, TablesAreTwoToTheOctave) {
  EXPECT_EQ(rd_table_of(0.1f), 0U);
  EXPECT_EQ(rd_table_of(0.25f), 0U);
  EXPECT_EQ(rd_table_of(0.36f), 1U);
  EXPECT_EQ(rd_table_of(0.5f), 2U);
  EXPECT_EQ(rd_table_of(1.0f), 4U);
  EXPECT_EQ(rd_table_of(1e9f), kRdTables - 1);
  for (size_t table = 0; table < kRdTables; ++table) EXPECT_EQ(rd_table_of(rd_ratio_of(table)), table);
}

}  // namespace
}  // namespace scd
