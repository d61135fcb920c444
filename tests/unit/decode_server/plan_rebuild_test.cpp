// Payloads to pages on a GPU: what the CPU rebuilds, to rounding; of codec raw to the bit.
#include "common/rebuild/plan_rebuild.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>

#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/model/make_model.h"
#include "common/rebuild/model_shape.h"
#include "kernels/paged_kv.h"
#include "tests/support/gpu.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

constexpr int64_t kTokens = 60, kChunk = 32, kSinks = 5;
// Two layers' keys and values, a span, and what is predicted from its end.
const LayerPlan kPlan{1, {{1, 1}, {2, 1, true}, {3, 1}}};

struct Payloads {
  std::vector<ByteBuffer> bytes;
  std::vector<Payload> all;  // chunk by chunk, their units in order
};

class PlanRebuildTest : public ::testing::Test {
 protected:
  PlanRebuildTest() : directory_(std::filesystem::temp_directory_path() / ("scd_plan_" + std::to_string(::getpid()))) {
    make_model({.shape = "tiny", .seed = 1}, directory_);
  }
  ~PlanRebuildTest() override { std::filesystem::remove_all(directory_); }

  static Payloads payloads(const CodecModel& model, const Encoder& encoder, const LayerPlan& plan) {
    Payloads made;
    std::vector<PayloadPlace> places;
    for (int64_t first = 0; first < kTokens; first += kChunk) {
      for (const CodedUnit& unit : plan.units) {
        const int64_t tokens = std::min(kChunk, kTokens - first);
        const auto seed = static_cast<uint32_t>(100 * unit.first_layer + first);
        const testing::SampleChunk chunk(model, unit.first_layer, first, tokens, seed, unit.layers);
        encoder.encode(chunk.chunk, {}, made.bytes.emplace_back());
        places.push_back({unit.first_layer, first, tokens});
      }
    }
    for (size_t i = 0; i < places.size(); ++i) made.all.push_back({places[i], made.bytes[i]});
    return made;
  }

  Model load(kernels::Device device) const {
    return Model::load({.directory = directory_, .precision = kernels::DType::kF32, .device = device});
  }

  DenseMatrix rebuilt_on(kernels::Device device) const {
    const Model model = load(device);
    const CodecModel shape = codec_model_of(model.config());
    const testing::RdSample sample = testing::sample_rd(shape, kPlan, {0.02f});
    const RdDecoder decoder(shape, sample.decoder, {}, device);
    return rebuilt(model, decoder, kPlan, payloads(shape, RdEncoder(shape, sample.encoder, {}), kPlan));
  }

  // Keys and values of all layers, side by side.
  static DenseMatrix rebuilt(const Model& model, const Decoder& decoder, const LayerPlan& plan, const Payloads& codes) {
    KvCache cache(model.config().kv_shape(kernels::DType::kF32), 8, model.device());
    PageTable pages = cache.pool().make_table();
    std::move(pages.reserve(kTokens)).value_or_throw();
    std::vector<TokenId> tokens;
    for (int64_t i = 0; i < kTokens; ++i) tokens.push_back(static_cast<TokenId>((i * 37 + 11) % 320));
    const SequenceChunk sinks{&pages, 0, std::span(tokens).first(kSinks)};
    ForwardPass pass(model, cache, std::span(&sinks, 1));
    while (pass.next_layer() < model.config().layers) pass.run_layer();
    std::optional<NativeLayers> exact;
    if (plan.exact_layers > 0) {
      exact.emplace(NativeLayers::Args{.model = model,
                                       .cache = cache,
                                       .pages = pages,
                                       .tokens = tokens,
                                       .first_layer = 0,
                                       .layers = plan.exact_layers,
                                       .keep_anchor = decoder.needs_anchor(0)});
      exact->begin(kTokens);
      exact->run_chunk();
    }
    PlanRebuild rebuild({.model = model,
                         .cache = cache,
                         .pages = pages,
                         .tokens = tokens,
                         .exact_tokens = kSinks,
                         .plan = plan,
                         .decoder = decoder,
                         .exact_layers = exact ? &*exact : nullptr});
    if (decoder.reads_ahead()) {
      for (const CodeBlock& block : decoder.read_ahead(codes.all).value_or_throw()) {
        EXPECT_TRUE(rebuild.applicable(block.place.layer, block.place.first_position, block.place.tokens));
        rebuild.apply(block);
        while (rebuild.running()) rebuild.run_layer();
      }
    } else {
      for (const auto& [place, bytes] : codes.all) {
        std::move(rebuild.apply(place.layer, place.first_position, place.tokens, bytes)).value_or_throw();
        while (rebuild.running()) rebuild.run_layer();
      }
    }
    const int64_t width = cache.shape().kv_width();
    DenseMatrix all(kTokens, 2 * width * model.config().layers);
    for (int32_t layer = 0; layer < model.config().layers; ++layer) {
      kernels::Matrix keys = all.view();
      keys.data = keys.row<float>(0) + 2 * layer * width;
      keys.columns = width;
      kernels::Matrix values = keys;
      values.data = keys.row<float>(0) + width;
      kernels::read_kv(cache.layer(layer), {pages.page_ids(), 0, kTokens, 0}, keys, values);
    }
    pages.release();
    return all;
  }

  const std::filesystem::path directory_;
};

TEST_F(PlanRebuildTest, AGpuRebuildsWhatTheCpuDoes) {
  SCD_SKIP_WITHOUT_GPU();
  const DenseMatrix expected = rebuilt_on(kernels::Device::kCpu), found = rebuilt_on(kernels::Device::kGpu);
  ASSERT_EQ(found.values.size(), expected.values.size());
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < found.columns; ++i) {
      ASSERT_NEAR(found.at(t, i), expected.at(t, i), 4e-2 * std::max(1.0f, std::abs(expected.at(t, i))))
          << "token " << t << ", column " << i;
    }
  }
}

// What was computed before them stays.
TEST_F(PlanRebuildTest, AGpuWritesRawBitForBit) {
  SCD_SKIP_WITHOUT_GPU();
  std::vector<DenseMatrix> made;
  for (const kernels::Device device : {kernels::Device::kCpu, kernels::Device::kGpu}) {
    const Model model = load(device);
    const CodecModel shape = codec_model_of(model.config());
    const LayerPlan plan = layer_by_layer(shape.layers, 0);
    const auto encoder = make_encoder(CodecId::kRaw, shape, nullptr);
    const auto decoder = make_decoder(CodecId::kRaw, shape, shape, nullptr, {.device = device});
    EXPECT_EQ(decoder->reads_ahead(), device == kernels::Device::kGpu);
    made.push_back(rebuilt(model, *decoder, plan, payloads(shape, *encoder, plan)));
  }
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < made[0].columns; ++i) {
      ASSERT_NEAR(made[1].at(t, i), made[0].at(t, i), t < kSinks ? 1e-3 : 0) << "token " << t << ", column " << i;
    }
  }
}

}  // namespace
}  // namespace scd
