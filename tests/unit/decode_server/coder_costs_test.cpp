#include "decode_server/coder_costs.h"

#include <gtest/gtest.h>

#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

CodecModel small_model() {
  return {.layers = 4, .kv_heads = 2, .head_dim = 8, .hidden = 32, .rope = {{1.0F, 0.5F, 0.2F, 0.1F}}};
}

TEST(CoderCosts, AreMeasuredOfEveryCoder) {
  const CodecModel model = small_model();
  ArtifactDecoder artifact;
  artifact.codec = CodecId::kRd;
  artifact.rd = testing::sample_rd(model, layer_by_layer(model.layers, 1), {0.1F, 0.5F}).decoder;
  const CoderCosts costs = measure_coders(model, 3, &artifact);
  EXPECT_NEAR(costs.raw.bytes, 3 * 4 * 16, 1);  // keys and values in BF16, and a header
  EXPECT_LT(costs.lossless.bytes, 0.85 * costs.raw.bytes);
  EXPECT_GT(costs.raw.seconds, 0);
  EXPECT_GT(costs.lossless.seconds, costs.raw.seconds);
  ASSERT_EQ(costs.entropy.size(), 2U);
  ASSERT_EQ(costs.packed.size(), 2U);
  for (size_t level = 0; level < 2; ++level) {
    EXPECT_GT(costs.entropy[level].seconds, 0);
    EXPECT_GT(costs.packed[level].seconds, 0);
    EXPECT_LT(costs.entropy[level].bytes, costs.packed[level].bytes);
  }
  EXPECT_LT(costs.entropy[1].bytes, costs.entropy[0].bytes);
}

TEST(CoderCosts, OfFormsNeedAnArtifactThatHasThem) {
  EXPECT_TRUE(measure_coders(small_model(), 3, nullptr).entropy.empty());
  ArtifactDecoder artifact;
  artifact.codec = CodecId::kScd;
  EXPECT_TRUE(measure_coders(small_model(), 3, &artifact).packed.empty());
}

}  // namespace
}  // namespace scd
