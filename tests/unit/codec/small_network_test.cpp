#include "common/codec/small_network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using testing::random_matrix;

constexpr int64_t kComponents = 5, kAnchor = 3, kWidth = 4, kOutputs = 6, kTokens = 7;

SmallNetwork sample_network() {
  return {random_matrix(kComponents + kAnchor, kWidth, 1), random_matrix(1, kWidth, 2).values,
          random_matrix(kWidth, kOutputs, 3), random_matrix(1, kOutputs, 4).values};
}

// Codes of `sent` components.
double expected(const SmallNetwork& network, const DenseMatrix& codes, const DenseMatrix& anchor,
                std::pair<int64_t, int64_t> place) {
  const auto [token, output] = place;
  double sum = network.output_bias.empty() ? 0.0 : network.output_bias[static_cast<size_t>(output)];
  for (int64_t w = 0; w < kWidth; ++w) {
    double inner = network.input_bias[static_cast<size_t>(w)];
    for (int64_t c = 0; c < codes.rows; ++c) inner += double{codes.at(c, token)} * network.input.at(c, w);
    for (int64_t i = 0; i < anchor.columns; ++i) {
      inner += double{anchor.at(token, i)} * network.input.at(kComponents + i, w);
    }
    sum += inner / (1 + std::exp(-inner)) * network.output.at(w, output);
  }
  return sum;
}

TEST(SmallNetwork, AddsOneHiddenLayerOfWhateverCodesArrivedAndTheAnchor) {
  const SmallNetwork network = sample_network();
  const DenseMatrix anchor = random_matrix(kTokens, kAnchor, 6);
  for (const int64_t sent : {kComponents, int64_t{2}, int64_t{0}}) {
    const DenseMatrix codes = random_matrix(sent, kTokens, 5);
    const DenseMatrix before = random_matrix(kTokens, kOutputs, 7);
    DenseMatrix out = before;
    add_network(network, {codes.view(), anchor.view()}, out.view());
    for (int64_t token = 0; token < kTokens; ++token) {
      for (int64_t i = 0; i < kOutputs; ++i) {
        EXPECT_NEAR(out.at(token, i) - before.at(token, i), expected(network, codes, anchor, {token, i}), 1e-4)
            << sent << " components";
      }
    }
  }
}

TEST(SmallNetwork, AnEmptyOneAddsNothing) {
  const DenseMatrix codes = random_matrix(2, kTokens, 5), before = random_matrix(kTokens, kOutputs, 7);
  DenseMatrix out = before;
  add_network({}, {codes.view()}, out.view());
  EXPECT_EQ(out, before);
}

TEST(SmallNetwork, SaysWhetherItsShapesFit) {
  constexpr int64_t kInputs = kComponents + kAnchor;
  const SmallNetwork whole = sample_network();
  EXPECT_TRUE(whole.fits(kInputs, kOutputs));
  EXPECT_FALSE(whole.fits(kInputs + 1, kOutputs));
  EXPECT_FALSE(whole.fits(kInputs, kOutputs - 1));
  EXPECT_TRUE(SmallNetwork{}.fits(kInputs, kOutputs));
  SmallNetwork spoiled = whole;
  spoiled.output_bias.clear();
  EXPECT_TRUE(spoiled.fits(kInputs, kOutputs));
  spoiled.output_bias.assign(2, 1.0f);
  EXPECT_FALSE(spoiled.fits(kInputs, kOutputs));
  spoiled = whole;
  spoiled.input_bias.pop_back();
  EXPECT_FALSE(spoiled.fits(kInputs, kOutputs));
  spoiled = whole;
  spoiled.output = {};  // half a network
  EXPECT_FALSE(spoiled.fits(kInputs, kOutputs));
}

}  // namespace
}  // namespace scd
