#include <gmock/gmock.h>

#include <Eigen/Core>
#include <cmath>
#include <random>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/calibration/second_moment.h"
#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "common/codec/rd/rd_codec.h"
#include "kernels/linear.h"
#include "tests/unit/codec/codec_samples.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using testing::random_matrix;
using testing::SampleChunk;
using testing::small_model;

// x of falling variances, y a noisy linear image of it.
struct LinearPair {
  DenseMatrix x;
  DenseMatrix y;
};

LinearPair linear_pair(int64_t tokens, int64_t dims, float noise, uint32_t seed) {
  LinearPair pair{random_matrix(tokens, dims, seed), random_matrix(tokens, dims, seed + 1)};
  const DenseMatrix map = random_matrix(dims, dims, 99);
  for (int64_t row = 0; row < tokens; ++row) {
    for (int64_t i = 0; i < dims; ++i)
      pair.x.at(row, i) = 0.5f + pair.x.at(row, i) * std::pow(0.8f, static_cast<float>(i));
    for (int64_t i = 0; i < dims; ++i) {
      float sum = 1.0f + noise * pair.y.at(row, i);
      for (int64_t k = 0; k < dims; ++k) sum += 0.3f * pair.x.at(row, k) * map.at(k, i);
      pair.y.at(row, i) = sum;
    }
  }
  return pair;
}

Eigen::MatrixXd moment_of(const LinearPair& pair) {
  DenseMatrix ones(pair.x.rows, pair.y.columns + 1);
  for (int64_t row = 0; row < pair.x.rows; ++row) {
    for (int64_t i = 0; i < pair.y.columns; ++i) ones.at(row, i) = pair.y.at(row, i);
    ones.at(row, pair.y.columns) = 1.0f;
  }
  SecondMoment moment(pair.x.columns + pair.y.columns + 1);
  moment.add_joined(pair.x.view(), std::as_const(ones).view());
  return moment.sum();
}

// Both sides' maps.
struct Fitted : RateFit {
  RdUnitDecoder decoder;
};

Fitted fit_in(const LinearPair& pair, const Eigen::MatrixXd& metric) {
  const Eigen::MatrixXd sum = moment_of(pair);
  const RegressionMoment moment{sum, pair.x.columns, pair.y.columns};
  Fitted fitted{fit_rate(moment, metric, 1e-9), {}};
  fitted.decoder = fit_decoder(moment, fitted.encoder, 1e-9);
  return fitted;
}

Fitted fit(const LinearPair& pair) { return fit_in(pair, Eigen::MatrixXd::Identity(pair.y.columns, pair.y.columns)); }

// Loss when components are quantised with this step: the high-rate formula, at most the component's own variance.
double expected_loss(const RateFit& fit, double step) {
  double loss = fit.unpredictable;
  for (const float deviation : fit.deviations) loss += std::min(double{deviation} * deviation, step * step / 12);
  return loss;
}

// [components, tokens]
DenseMatrix codes_of(const RdUnitEncoder& encoder, const DenseMatrix& x) {
  DenseMatrix codes(encoder.map.rows, x.rows);
  for (int64_t c = 0; c < codes.rows; ++c) {
    for (int64_t row = 0; row < x.rows; ++row) {
      float sum = encoder.offset[static_cast<size_t>(c)];
      for (int64_t i = 0; i < x.columns; ++i) sum += encoder.map.at(c, i) * x.at(row, i);
      codes.at(c, row) = sum;
    }
  }
  return codes;
}

TEST(RateFit, CodesAreUncorrelatedWithTheDeviationsItSays) {
  const LinearPair pair = linear_pair(5000, 12, 0.3f, 1);
  const Fitted fitted = fit(pair);
  const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
  for (int64_t i = 0; i < codes.rows; ++i) {
    for (int64_t k = 0; k <= i; ++k) {
      double sum = 0;
      for (int64_t row = 0; row < codes.columns; ++row) sum += double{codes.at(i, row)} * codes.at(k, row);
      const double expected = i == k ? std::pow(fitted.deviations[static_cast<size_t>(i)], 2) : 0.0;
      EXPECT_NEAR(sum / static_cast<double>(codes.columns), expected, 2e-3 * std::pow(fitted.deviations[0], 2));
    }
  }
  EXPECT_TRUE(std::ranges::is_sorted(fitted.deviations, std::greater{}));
}

TEST(RateFit, AllComponentsLeaveWhatIsUnpredictableAndFewerTheirVariance) {
  const LinearPair pair = linear_pair(20'000, 12, 0.3f, 2);
  const Fitted fitted = fit(pair);
  EXPECT_NEAR(fitted.unpredictable, 12 * 0.09, 0.03);
  const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
  for (const int64_t rank : {int64_t{12}, int64_t{4}}) {
    double loss = 0;
    for (int64_t row = 0; row < pair.y.rows; ++row) {
      for (int64_t i = 0; i < 12; ++i) {
        float y = fitted.decoder.mean[static_cast<size_t>(i)];
        for (int64_t c = 0; c < rank; ++c) y += fitted.decoder.map.at(c, i) * codes.at(c, row);
        loss += std::pow(double{y} - pair.y.at(row, i), 2);
      }
    }
    double expected = fitted.unpredictable;
    for (size_t c = static_cast<size_t>(rank); c < 12; ++c) expected += std::pow(double{fitted.deviations[c]}, 2);
    EXPECT_NEAR(loss / static_cast<double>(pair.y.rows), expected, 0.01 * expected) << rank;
  }
}

TEST(RateFit, TheMetricDecidesWhatComesFirst) {
  const LinearPair pair = linear_pair(5000, 6, 0.1f, 3);
  Eigen::MatrixXd metric = Eigen::MatrixXd::Zero(6, 6);
  metric(2, 2) = 1.0;  // nobody reads the other dimensions
  const Fitted fitted = fit_in(pair, metric);
  ASSERT_EQ(fitted.deviations.size(), 1U);
  const DenseMatrix codes = codes_of(fitted.encoder, pair.x);
  double loss = 0;
  for (int64_t row = 0; row < pair.y.rows; ++row) {
    const float y = fitted.decoder.mean[2] + fitted.decoder.map.at(0, 2) * codes.at(0, row);
    loss += std::pow(double{y} - pair.y.at(row, 2), 2);
  }
  EXPECT_NEAR(loss / static_cast<double>(pair.y.rows), 0.01, 0.001);
}

// y = x + 2 h + noise: an anchor that both sides have takes its part out of the codes.
TEST(RateFit, WhatTheAnchorTellsIsNotCoded) {
  constexpr int64_t kTokens = 20'000, kDims = 4;
  const DenseMatrix own = random_matrix(kTokens, kDims, 11), anchor = random_matrix(kTokens, kDims, 12);
  const DenseMatrix noise = random_matrix(kTokens, kDims, 13);
  DenseMatrix y(kTokens, kDims), x(kTokens, kDims), ones(kTokens, 1);
  for (int64_t row = 0; row < kTokens; ++row) {
    ones.at(row, 0) = 1.0f;
    for (int64_t i = 0; i < kDims; ++i) {
      x.at(row, i) = own.at(row, i) + 2 * anchor.at(row, i);  // the producer's state holds it too
      y.at(row, i) = x.at(row, i) + 0.1f * noise.at(row, i) + 3.0f;
    }
  }
  const auto moment_with = [&](const DenseMatrix& source, bool anchored) {
    DenseMatrix target = y;
    if (anchored) target = side_by_side(std::as_const(target).view(), anchor.view());
    target = side_by_side(std::as_const(target).view(), std::as_const(ones).view());
    SecondMoment moment(source.columns + target.columns);
    moment.add_joined(source.view(), std::as_const(target).view());
    return moment.sum();
  };
  const Eigen::MatrixXd plain = moment_with(x, false);
  const DenseMatrix both = side_by_side(std::as_const(x).view(), anchor.view());
  const Eigen::MatrixXd informed = moment_with(both, true);
  const Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(kDims, kDims);
  const RateFit without = fit_rate({plain, kDims, kDims}, metric, 1e-9);
  const RateFit with = fit_rate({informed, 2 * kDims, kDims}, metric, 1e-9);
  for (size_t i = 0; i < kDims; ++i) {
    EXPECT_NEAR(without.deviations[i], std::sqrt(5.0f), 0.1f);
    EXPECT_NEAR(with.deviations[i], 1.0f, 0.05f);  // only `own` is left
  }
  EXPECT_NEAR(with.unpredictable, kDims * 0.01, 0.002);
  const RdUnitDecoder decoder = fit_decoder({informed, 2 * kDims, kDims}, with.encoder, 1e-9);
  const DenseMatrix codes = codes_of(with.encoder, both);
  double loss = 0;
  for (int64_t row = 0; row < kTokens; ++row) {
    for (int64_t i = 0; i < kDims; ++i) {
      float back = decoder.mean[static_cast<size_t>(i)];
      for (int64_t c = 0; c < codes.rows; ++c) back += decoder.map.at(c, i) * codes.at(c, row);
      for (int64_t c = 0; c < kDims; ++c) back += decoder.anchor_map.at(c, i) * anchor.at(row, c);
      loss += std::pow(double{back} - y.at(row, i), 2);
    }
  }
  EXPECT_NEAR(loss / kTokens, with.unpredictable, 0.002);
}

// y depends on two directions of h, in one of which nobody is interested.
TEST(RateFit, FewDirectionsOfTheAnchorAreThoseThatTellMost) {
  constexpr int64_t kTokens = 20'000, kDims = 4, kAnchor = 6;
  const DenseMatrix x = random_matrix(kTokens, kDims, 21);
  DenseMatrix anchor = random_matrix(kTokens, kAnchor, 22), y(kTokens, kDims + kAnchor + 1);  // [y h 1]
  for (int64_t row = 0; row < kTokens; ++row) {
    for (int64_t i = 0; i < kAnchor; ++i) y.at(row, kDims + i) = anchor.at(row, i) = 2.0f + 3.0f * anchor.at(row, i);
    const float much = anchor.at(row, 0) + anchor.at(row, 1), other = anchor.at(row, 2);
    for (int64_t i = 0; i < kDims; ++i) y.at(row, i) = x.at(row, i) + much + (i == 3 ? 5.0f * other : 0.0f);
    y.at(row, kDims + kAnchor) = 1.0f;
  }
  SecondMoment sums(kDims + y.columns);
  sums.add_joined(x.view(), std::as_const(y).view());
  const Eigen::MatrixXd sum = sums.sum();
  const RegressionMoment whole{sum, kDims, kDims};
  Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(kDims, kDims);
  metric(3, 3) = 1e-6;
  const AnchorDirections directions = anchor_directions(whole, metric, 1e-9);
  ASSERT_EQ(directions.basis.rows(), kAnchor);
  ASSERT_EQ(directions.told.size(), kAnchor);
  EXPECT_NEAR(directions.told[0], 3 * 2 * 9, 1);
  EXPECT_NEAR(directions.told[1], 1e-6 * 25 * 9, 2e-5);
  EXPECT_NEAR(directions.told[2], 0, 1e-5);
  const Eigen::MatrixXd one = directions.basis.leftCols(1), two = directions.basis.leftCols(2);
  EXPECT_NEAR(std::abs(one(0, 0)), 1 / (3 * std::sqrt(2.0)), 5e-3);  // of variance 1
  EXPECT_NEAR(one(0, 0), one(1, 0), 5e-3);
  EXPECT_NEAR(one.bottomRows(4).norm(), 0, 5e-3);

  // What is coded then is x, and of the last value's other part as much as the metric asks for.
  const auto unpredictable = [&](const Eigen::MatrixXd& basis) {
    const Eigen::MatrixXd seen = moment_of_directions(whole, basis);
    EXPECT_TRUE(seen.isApprox(seen.transpose(), 1e-9));
    return fit_rate({seen, kDims, kDims}, metric, 1e-9).unpredictable;
  };
  const double all = fit_rate(whole, metric, 1e-9).unpredictable;
  EXPECT_NEAR(unpredictable(two), all, 1e-4);
  EXPECT_NEAR(unpredictable(one), all + 1e-6 * 25 * 9, 1e-4);
  const Eigen::MatrixXd wrong = Eigen::MatrixXd::Identity(kAnchor, kAnchor).rightCols(2);
  EXPECT_GT(unpredictable(wrong), all + 1);
}

// Consumers are columns of one regression: those that each hold a part of y are served as one that holds all of it.
TEST(RateFit, AnEncoderForSeveralConsumersIsThatOfTheirStatesSideBySide) {
  constexpr int64_t kHalf = 6;
  const LinearPair both = linear_pair(3000, 2 * kHalf, 0.1f, 61);
  const auto part = [&](int64_t first) {
    LinearPair one{both.x, DenseMatrix(both.y.rows, kHalf)};
    for (int64_t row = 0; row < both.y.rows; ++row) {
      for (int64_t i = 0; i < kHalf; ++i) one.y.at(row, i) = both.y.at(row, first + i);
    }
    return moment_of(one);
  };
  const Eigen::MatrixXd all = moment_of(both), left = part(0), right = part(kHalf);
  const Eigen::MatrixXd one = Eigen::MatrixXd::Identity(kHalf, kHalf), two = 2 * one;
  Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(2 * kHalf, 2 * kHalf);
  metric.bottomRightCorner(kHalf, kHalf) *= 3 * 2;
  const RateFit joined = fit_rate({all, 2 * kHalf, 2 * kHalf}, metric, 1e-9);
  const RegressionTarget consumers[] = {{{left, 2 * kHalf, kHalf}, one}, {{right, 2 * kHalf, kHalf}, two, 3}};
  const RateFit stacked = fit_rate(consumers, 1e-9);
  ASSERT_EQ(stacked.deviations.size(), joined.deviations.size());
  EXPECT_NEAR(stacked.energy, joined.energy, 1e-6 * joined.energy);
  EXPECT_NEAR(stacked.unpredictable, joined.unpredictable, 1e-4 * joined.unpredictable);
  for (size_t i = 0; i < joined.deviations.size(); ++i) {
    EXPECT_NEAR(stacked.deviations[i], joined.deviations[i], 1e-3f * joined.deviations[i]);
    for (int64_t c = 0; c < 2 * kHalf; ++c) {
      const auto row = static_cast<int64_t>(i);
      EXPECT_NEAR(stacked.encoder.map.at(row, c), joined.encoder.map.at(row, c),
                  1e-2f * (0.1f + std::abs(joined.encoder.map.at(row, c))));
    }
  }
}

// More columns than x has: the same directions are found from the other side.
TEST(RateFit, TheSameConsumerTwiceChangesNothing) {
  constexpr int64_t kDims = 8;
  const Eigen::MatrixXd moment = moment_of(linear_pair(3000, kDims, 0.1f, 71));
  const Eigen::MatrixXd metric = Eigen::MatrixXd::Identity(kDims, kDims);
  const RateFit once = fit_rate({moment, kDims, kDims}, metric, 1e-9);
  const RegressionTarget half{{moment, kDims, kDims}, metric, 0.5};
  const RegressionTarget consumers[] = {half, half};
  const RateFit twice = fit_rate(consumers, 1e-9);
  ASSERT_EQ(twice.deviations.size(), once.deviations.size());
  for (size_t i = 0; i < once.deviations.size(); ++i) {
    EXPECT_NEAR(twice.deviations[i], once.deviations[i], 1e-3f * once.deviations[i]);
    const auto row = static_cast<int64_t>(i);
    for (int64_t c = 0; c < kDims; ++c) {  // up to the sign of each component
      EXPECT_NEAR(std::abs(twice.encoder.map.at(row, c)), std::abs(once.encoder.map.at(row, c)),
                  1e-2f * (0.1f + std::abs(once.encoder.map.at(row, c))));
    }
  }
}

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
