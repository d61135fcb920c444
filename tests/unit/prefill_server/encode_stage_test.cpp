#include "prefill_server/encode/encode_stage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "kernels/paged_kv.h"
#include "tests/support/gpu.h"
#include "tests/unit/codec/rd_samples.h"
#include "tests/unit/prefill_server/quiet_jobs.h"

namespace scd {
namespace {

TEST(EncodeStageTest, HoldsAJobNoLongerThanItsStep) {
  const testing::EmptyEncoder encoder(2);
  CodeCache cache(0, 16);
  QueuedSpans spans;
  EncodeStage stage(cache, spans, [](const EncodeStage::Job&, CodeUnit) {});
  const auto job = testing::quiet_job(16, encoder, [](PrefillJob&, const std::optional<Failure>&) {});
  for (int step = 0; step < 2; ++step) {
    const auto held_before = job.use_count();
    {
      const StepPart part{job, {0, 16}};
      stage.begin_step({&part, 1});
    }
    EXPECT_EQ(job.use_count(), held_before + 1);
    stage.end_step();
    EXPECT_EQ(job.use_count(), held_before);
  }
}

// Two prompts in one step whose units are predicted from one anchor: payloads of either device, read by one decoder.
class EncodeOnDevices : public ::testing::Test {
 protected:
  static constexpr int64_t kTokens = 48;
  static constexpr int32_t kLayers = 4;
  using Place = std::tuple<size_t, int32_t, int64_t>;  // prompt, layer, first token
  using Keys = std::map<Place, std::vector<float>>;

  EncodeOnDevices() {
    model_.layers = kLayers;
    for (uint32_t seed = 0; seed < 2; ++seed) {
      anchors_.push_back(testing::random_matrix(kTokens, model_.hidden, 70 + seed));
    }
  }

  Keys keys_by(kernels::Device device) {
    const testing::RdSample sample = testing::sample_rd(model_, plan_, {0.02f});
    const RdEncoder encoder(model_, sample.encoder, {}, device);
    const RdDecoder decoder(model_, sample.decoder, {});
    Keys keys;
    encode(encoder, device, 1, [&](size_t prompt, const CodeUnit& code) {
      kernels::ConstMatrix anchor = std::as_const(anchors_[prompt]).view();
      anchor.data = anchor.row<float>(code.tokens.first);
      anchor.rows = code.tokens.count;
      DecodedLayer decoded;
      const PayloadPlace place{code.layer, code.tokens.first, code.tokens.count, anchor};
      ASSERT_TRUE(decoder.decode(place, code.payload.bytes, decoded).ok());
      keys[{prompt, code.layer, code.tokens.first}] = decoded.keys;
    });
    return keys;
  }

  std::map<Place, std::vector<std::byte>> raw_by(kernels::Device device) {
    std::map<Place, std::vector<std::byte>> payloads;
    encode(*make_encoder(CodecId::kRaw, model_, nullptr, device), device, 0, [&](size_t prompt, const CodeUnit& code) {
      const std::span<const std::byte> bytes = code.payload.bytes;
      payloads[{prompt, code.layer, code.tokens.first}] = {bytes.begin(), bytes.end()};
    });
    return payloads;
  }

  void encode(const Encoder& encoder, kernels::Device device, int32_t exact_layers,
              const std::function<void(size_t, const CodeUnit&)>& on_code) {
    EXPECT_EQ(encoder.reads_pages(), device == kernels::Device::kGpu);
    KvCache cache({kLayers, model_.kv_heads, model_.head_dim, kernels::DType::kBF16}, 8, device);
    std::vector<std::vector<int32_t>> pages{{6, 1, 3}, {0, 7, 2}};
    std::vector<EncodeStage::Job> jobs;
    CodeCache codes(0, 16);
    QueuedSpans spans;
    EncodeStage stage(codes, spans, [&](const EncodeStage::Job& job, const CodeUnit& code) {
      on_code(static_cast<size_t>(std::ranges::find(jobs, job) - jobs.begin()), code);
    });
    std::vector<StepPart> parts;
    for (size_t prompt = 0; prompt < 2; ++prompt) {
      jobs.push_back(testing::quiet_job(
          kTokens, encoder, [](PrefillJob&, const std::optional<Failure>&) {}, exact_layers));
      parts.push_back({jobs.back(), {0, kTokens}});
      for (int32_t layer = 0; layer < kLayers; ++layer) write(cache, layer, prompt, pages[prompt]);
    }
    stage.begin_step(parts);
    for (size_t prompt = 0; prompt < 2 && encoder.needs_residual(0); ++prompt) {
      stage.keep_residual(jobs[prompt], {0, {0, kTokens}, anchors_[prompt].view()});
    }
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (size_t prompt = 0; prompt < 2; ++prompt) {
        stage.encode(jobs[prompt], {layer, {0, kTokens}, cache, pages[prompt], {}});
      }
    }
    stage.end_step();
  }

  void write(KvCache& cache, int32_t layer, size_t prompt, std::span<const int32_t> pages) const {
    const auto seed = static_cast<uint32_t>(10 * layer) + static_cast<uint32_t>(prompt);
    const DenseMatrix keys = testing::random_matrix(kTokens, model_.kv_width(), seed);
    const DenseMatrix values = testing::random_matrix(kTokens, model_.kv_width(), seed + 100);
    const kernels::SequenceRows rows{pages, 0, kTokens, 0};
    kernels::write_kv(cache.layer(layer), {&rows, 1}, keys.view(), values.view());
  }

  CodecModel model_ = testing::small_model();
  const LayerPlan plan_{1, {{1, 1}, {2, 2}}};
  std::vector<DenseMatrix> anchors_;
};

TEST_F(EncodeOnDevices, AGpuCodesWhatTheCpuDoes) {
  SCD_SKIP_WITHOUT_GPU();
  const Keys expected = keys_by(kernels::Device::kCpu), found = keys_by(kernels::Device::kGpu);
  ASSERT_EQ(found.size(), 2 * 2 * 3);
  for (const auto& [place, keys] : expected) {
    const std::vector<float>& other = found.at(place);
    ASSERT_EQ(other.size(), keys.size());
    for (size_t i = 0; i < keys.size(); ++i) ASSERT_NEAR(other[i], keys[i], 0.1) << i;
  }
}

TEST_F(EncodeOnDevices, PromptsThatShareAStepTakeNoMoreOfAGpuThanOne) {
  SCD_SKIP_WITHOUT_GPU();
  const testing::RdSample sample = testing::sample_rd(model_, plan_, {0.02f});
  const RdEncoder encoder(model_, sample.encoder, {}, kernels::Device::kGpu);
  CodeCache codes(0, 16);
  QueuedSpans spans;
  EncodeStage stage(codes, spans, [](const EncodeStage::Job&, const CodeUnit&) {});
  const auto step = [&](const std::vector<int64_t>& prompts) {
    std::vector<StepPart> parts;
    for (const int64_t tokens : prompts) {
      const auto nothing = [](PrefillJob&, const std::optional<Failure>&) {};
      parts.push_back({testing::quiet_job(kTokens, encoder, nothing, 1), {0, tokens}});
    }
    stage.begin_step(parts);
    for (const StepPart& part : parts) {
      const kernels::ConstMatrix rows = kernels::rows_of(anchors_[0].view(), 0, part.tokens.count);
      stage.keep_residual(part.job, {0, part.tokens, rows});
    }
    stage.end_step();
    return kernels::gpu_held_bytes();
  };
  const size_t of_one = step({48});
  EXPECT_EQ(step({16, 16, 16}), of_one);
  EXPECT_EQ(step({16, 32}), of_one);
  EXPECT_EQ(step({32, 16}), of_one);
}

TEST_F(EncodeOnDevices, AGpuHandsOnTheRawBytesOfTheCpu) {
  SCD_SKIP_WITHOUT_GPU();
  const auto found = raw_by(kernels::Device::kGpu);
  EXPECT_EQ(found.size(), 2 * kLayers * 3);
  EXPECT_EQ(found, raw_by(kernels::Device::kCpu));
}

}  // namespace
}  // namespace scd
