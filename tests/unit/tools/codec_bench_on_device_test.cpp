// What the benches time of codec rd on a GPU is the codec at work: every part runs, and payloads have the length that
// their components' deviations ask for.
#include "tools/scd/codec_bench_on_device.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "common/base/error.h"
#include "tests/support/gpu.h"
#include "tools/scd/made_up_codec.h"

namespace scd {
namespace {

CodecModel small_model() {
  CodecModel model{.layers = 7, .kv_heads = 2, .head_dim = 16, .hidden = 48, .rope = {}};
  for (int i = 0; i < 8; ++i) model.rope.inverse_frequencies.push_back(1.0f / static_cast<float>(1 << i));
  return model;
}

// Each action once; n seconds for the n-th.
struct Turns {
  double operator()(const std::function<void()>& action) {
    action();
    return ++turns;
  }
  int turns = 0;
};

class CodecBenchOnDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override { SCD_SKIP_WITHOUT_GPU(); }
};

TEST_F(CodecBenchOnDeviceTest, MeasuresEveryPartOfGroupsThatArePredictedFromAnAnchor) {
  CodecBenchOnDevice bench(CodecBenchMaps::grouped(small_model(), 10),
                           {.tokens = 75, .batch_tokens = 50, .chunk_tokens = 33});
  ASSERT_EQ(bench.levels(), 1);
  const CodecBenchTimes times = bench.measure(0, Turns{});
  const std::set<double> seconds{times.encode_seconds,  times.codes_seconds,   times.coding_seconds,
                                 times.rebuild_seconds, times.reading_seconds, times.products_seconds};
  EXPECT_EQ(seconds, (std::set<double>{1, 2, 3, 4, 5, 6}));
  // Layers 3 to 6 are two units of 20 components; two layers' keys and values are 128 wide.
  EXPECT_EQ(times.codes, 2 * 75 * 20);
  EXPECT_EQ(times.encode_flops, 2 * 2 * 75 * 20 * (128 + 48));
  EXPECT_EQ(times.rebuild_flops, 2 * 2 * 75 * 128 * (20 + 48));
  // A normal number of d steps takes log2(d sqrt(2 pi e)) bits, 2.8 on average from 8 steps to .36. A chunk of a unit
  // begins with a header, 16 states and what tells where its parts end.
  EXPECT_GT(8 * times.payload_bytes, 2.5 * times.codes);
  EXPECT_LT(8 * (times.payload_bytes - 2 * 4 * 100), 3.2 * times.codes);
}

TEST_F(CodecBenchOnDeviceTest, TheHostCodesTheSameStreamsInFourSteps) {
  CodecBenchOnDevice bench(CodecBenchMaps::grouped(small_model(), 10),
                           {.tokens = 75, .batch_tokens = 50, .chunk_tokens = 33});
  const CodecBenchHostTimes times = bench.measure_host(0, Turns{});  // throws where bytes differ
  EXPECT_EQ(times.fetch_seconds, 1);
  EXPECT_EQ(times.coding_seconds, 2);
  EXPECT_EQ(times.reading_seconds, 3);
  EXPECT_EQ(times.return_seconds, 4);
}

TEST_F(CodecBenchOnDeviceTest, CodesOfAnArtifactHaveItsDeviationsWhateverItsMapsAreScaledTo) {
  const SyntheticShape shape{.layers = 2, .kv_heads = 2, .head_dim = 16, .components = {24, 8}};
  const CodecBenchPrompt prompt{.tokens = 64, .batch_tokens = 64, .chunk_tokens = 32};
  CodecBenchMaps maps = CodecBenchMaps::synthetic(shape);
  CodecBenchOnDevice plain(maps, prompt);
  for (RdUnitEncoder& unit : maps.encoder.units) {
    for (float& value : unit.map.values) value *= 1024.0f;
    unit.offset.assign(unit.offset.size(), 7.0f);
  }
  CodecBenchOnDevice large(maps, prompt);
  for (int32_t level = 0; level < 2; ++level) {
    const CodecBenchTimes times = plain.measure(level, Turns{});
    EXPECT_EQ(times.codes, 2 * 64 * shape.components[static_cast<size_t>(level)]);
    EXPECT_EQ(times.payload_bytes, large.measure(level, Turns{}).payload_bytes);
  }
}

TEST_F(CodecBenchOnDeviceTest, RunsResidualUnitsAndWhatComesBehindThem) {
  const CodecModel model = small_model();
  CodecBenchMaps maps = CodecBenchMaps::grouped(model, 10);
  for (LayerPlan* plan : {&maps.encoder.plan, &maps.decoder.plan}) plan->units.front().residual = true;
  maps.encoder.units.front().map = normal_matrix(20, 2 * model.hidden, 5);
  maps.decoder.units.front() = {normal_matrix(20, model.hidden, 6), normal_matrix(model.hidden, model.hidden, 7),
                                std::vector<float>(static_cast<size_t>(model.hidden))};
  CodecBenchOnDevice bench(maps, {.tokens = 20, .batch_tokens = 20, .chunk_tokens = 16});
  const CodecBenchTimes times = bench.measure(0, Turns{});
  EXPECT_EQ(times.encode_flops, 2 * 20 * 20 * (96 + 128 + 48));
  EXPECT_GT(times.payload_bytes, 0);
}

TEST_F(CodecBenchOnDeviceTest, RefusesADecoderThatWorksOnTheCpu) {
  CodecBenchMaps maps = CodecBenchMaps::grouped(small_model(), 10);
  for (RdUnitDecoder& unit : maps.decoder.units) {
    unit.network.input = DenseMatrix(20 + 48, 4);
    unit.network.input_bias.assign(4, 0.0f);
    unit.network.output = DenseMatrix(4, 128);
  }
  EXPECT_THROW(CodecBenchOnDevice(maps, {.tokens = 16, .batch_tokens = 16, .chunk_tokens = 16}), Error);
}

}  // namespace
}  // namespace scd
