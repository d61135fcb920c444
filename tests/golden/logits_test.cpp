// Every family against the logits of an independent implementation.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/model/adapter.h"
#include "common/model/decode_step.h"
#include "tests/golden/golden_case.h"
#include "tests/support/gpu.h"

namespace scd {
namespace {

using testing::golden_case;
using testing::margin;
using testing::most_probable;
using testing::row_of;
using testing::Sequence;

constexpr float kTolerance = 2e-4f;
constexpr float kDecidedMargin = 0.1f;

class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    golden_ = golden_case(GetParam());
    if (!golden_) GTEST_SKIP() << "no golden data here: set SCD_TEST_DATA to a folder that holds golden/" << GetParam();
  }
  Model load(kernels::DType precision, kernels::Device device = kernels::Device::kCpu) {
    golden_->load.precision = precision;
    golden_->load.device = device;
    return Model::load(golden_->load);
  }
  int64_t room() const { return static_cast<int64_t>(golden_->input_ids.size() + golden_->greedy.size()); }
  float largest_difference(const std::vector<float>& logits) const {
    float largest = 0;
    for (size_t i = 0; i < logits.size(); ++i) largest = std::max(largest, std::abs(logits[i] - golden_->logits[i]));
    return largest;
  }
  void expect_agreement(const std::vector<float>& logits) const {
    for (size_t row = 0; row < golden_->input_ids.size(); ++row) {
      const auto expected = row_of(golden_->logits, golden_->vocab, row);
      if (margin(expected) <= kDecidedMargin) continue;
      EXPECT_EQ(most_probable(row_of(logits, golden_->vocab, row)), most_probable(expected)) << "position " << row;
    }
  }
  // Two sequences, one a token behind the other, fed the golden ids one by one.
  void check_decode_steps(const Model& model) const {
    const std::span<const TokenId> ids(golden_->input_ids);
    KvCache cache(model.config().kv_shape(model.precision()), 64, model.device());
    std::vector<PageTable> tables;
    for (int i = 0; i < 2; ++i) {
      tables.push_back(cache.pool().make_table());
      std::move(tables.back().reserve(static_cast<int64_t>(ids.size()))).value_or_throw();
    }
    DecodeStep step(model, cache, 2);
    const int64_t vocab = model.config().vocab;
    for (size_t position = 0; position < ids.size(); ++position) {
      std::vector<SequenceChunk> batch{{&tables[0], static_cast<int64_t>(position), ids.subspan(position, 1)}};
      if (position > 0) {
        batch.push_back({&tables[1], static_cast<int64_t>(position) - 1, ids.subspan(position - 1, 1)});
      }
      const kernels::ConstMatrix logits = step.run(batch);
      std::vector<float> found(static_cast<size_t>(logits.rows * vocab));
      kernels::copy(logits, kernels::matrix(found.data(), logits.rows, vocab));
      for (size_t i = 0; i < batch.size(); ++i) {
        const auto expected = row_of(golden_->logits, golden_->vocab, position - i);
        const auto row = row_of(found, vocab, i);
        for (size_t id = 0; id < expected.size(); ++id) {
          ASSERT_NEAR(row[id], expected[id], kTolerance) << "sequence " << i << " position " << position;
        }
      }
    }
  }
  std::optional<testing::GoldenCase> golden_;
};

TEST_P(Golden, Fp32LogitsMatchAtEveryPosition) {
  const Model model = load(kernels::DType::kF32);
  const auto logits = Sequence(model, room()).run(golden_->input_ids);
  ASSERT_EQ(logits.size(), golden_->logits.size());
  EXPECT_LE(largest_difference(logits), kTolerance);
}

TEST_P(Golden, Fp32GreedyIdsMatch) {
  const Model model = load(kernels::DType::kF32);
  EXPECT_EQ(Sequence(model, room()).greedy(golden_->input_ids, golden_->greedy.size()), golden_->greedy);
}

// With frequencies as checkpoints are trained with, the same ids lead.
TEST_P(Golden, ExactRopeFrequenciesAgreeWhereTheMarginDecides) {
  golden_->load.rope_frequencies = kernels::DType::kF32;
  const Model model = load(kernels::DType::kF32);
  expect_agreement(Sequence(model, room()).run(golden_->input_ids));
}

TEST_P(Golden, Bf16AgreesWhereTheMarginDecides) {
  const Model model = load(kernels::DType::kBF16);
  expect_agreement(Sequence(model, room()).run(golden_->input_ids));
}

TEST_P(Golden, CudaFp32LogitsMatchAtEveryPosition) {
  SCD_SKIP_WITHOUT_GPU();
  const Model model = load(kernels::DType::kF32, kernels::Device::kGpu);
  const auto logits = Sequence(model, room()).run(golden_->input_ids);
  ASSERT_EQ(logits.size(), golden_->logits.size());
  EXPECT_LE(largest_difference(logits), kTolerance);
  EXPECT_EQ(Sequence(model, room()).greedy(golden_->input_ids, golden_->greedy.size()), golden_->greedy);
}

TEST_P(Golden, CudaBf16AgreesWhereTheMarginDecides) {
  SCD_SKIP_WITHOUT_GPU();
  const Model model = load(kernels::DType::kBF16, kernels::Device::kGpu);
  expect_agreement(Sequence(model, room()).run(golden_->input_ids));
}

// Steps that are recorded and replayed give what passes give.
TEST_P(Golden, CudaDecodeStepsMatch) {
  SCD_SKIP_WITHOUT_GPU();
  const Model model = load(kernels::DType::kF32, kernels::Device::kGpu);
  check_decode_steps(model);
}

TEST_P(Golden, DecodeStepsMatch) { check_decode_steps(load(kernels::DType::kF32)); }

TEST_P(Golden, ChunkedPrefillEqualsTheWhole) {
  const Model model = load(kernels::DType::kF32);
  Sequence sequence(model, room());
  std::vector<float> logits;
  const std::span<const TokenId> ids(golden_->input_ids);
  for (size_t first = 0, chunk = 1; first < ids.size(); first += chunk, chunk = chunk % 17 + 5) {
    chunk = std::min(chunk, ids.size() - first);
    const auto part = sequence.run(ids.subspan(first, chunk));
    logits.insert(logits.end(), part.begin(), part.end());
  }
  EXPECT_LE(largest_difference(logits), kTolerance);
}

// Prefixes of different lengths prefilled in one pass, then decoded together.
TEST_P(Golden, RaggedBatchEqualsOneByOne) {
  const Model model = load(kernels::DType::kF32);
  const std::span<const TokenId> ids(golden_->input_ids);
  KvCache cache(model.config().kv_shape(kernels::DType::kF32), 64);
  const std::vector<size_t> lengths{1, ids.size() - 1, 17, 16};
  std::vector<PageTable> tables;
  for (const size_t length : lengths) {
    tables.push_back(cache.pool().make_table());
    std::move(tables.back().reserve(static_cast<int64_t>(length) + 1)).value_or_throw();
  }
  std::vector<SequenceChunk> batch;
  for (size_t i = 0; i < lengths.size(); ++i) batch.push_back({&tables[i], 0, ids.first(lengths[i])});
  auto logits = forward_last_logits(model, cache, batch);
  const auto check = [&](size_t offset) {
    for (size_t i = 0; i < lengths.size(); ++i) {
      const auto expected = row_of(golden_->logits, golden_->vocab, lengths[i] - 1 + offset);
      const auto found = row_of(logits, golden_->vocab, i);
      for (size_t id = 0; id < expected.size(); ++id)
        ASSERT_NEAR(found[id], expected[id], kTolerance) << "sequence " << i;
    }
  };
  check(0);
  // The next step mixes decode tokens in another order than the pages were given out in.
  std::vector<SequenceChunk> step;
  for (size_t i = 0; i < lengths.size(); ++i) {
    step.push_back({&tables[i], static_cast<int64_t>(lengths[i]), ids.subspan(lengths[i], 1)});
  }
  logits = forward_last_logits(model, cache, step);
  check(1);
}

// Beside the base's weights an adapter gives what it gives in them, in a batch with sequences that have none.
class GoldenAdapter : public Golden {
 protected:
  // Logits of every id of three sequences in one pass: with the adapter, without one, with it again.
  std::vector<float> mixed_logits(const Model& base, const Adapter& adapter) const {
    const std::span<const TokenId> ids(golden_->input_ids);
    KvCache cache(base.config().kv_shape(base.precision()), 64, base.device());
    std::vector<PageTable> tables;
    std::vector<SequenceChunk> batch;
    for (int i = 0; i < 3; ++i) {
      tables.push_back(cache.pool().make_table());
      std::move(tables.back().reserve(std::ssize(ids))).value_or_throw();
    }
    for (size_t i = 0; i < 3; ++i) batch.push_back({&tables[i], 0, ids, i == 1 ? nullptr : &adapter});
    ForwardPass pass(base, cache, batch);
    while (pass.next_layer() < base.config().layers) pass.run_layer();
    std::vector<int64_t> rows(static_cast<size_t>(pass.rows()));
    std::iota(rows.begin(), rows.end(), 0);
    const kernels::ConstMatrix logits = pass.logits(rows);
    return {logits.row<float>(0), logits.row<float>(logits.rows)};
  }
  void check(kernels::DType precision, kernels::Device device) {
    const std::filesystem::path directory = golden_->load.adapter.value();
    golden_->load.adapter.reset();
    const Model base = load(precision, device);
    golden_->load.adapter = directory;  // for the next check
    const auto logits = mixed_logits(base, Adapter(base, directory));
    const size_t count = golden_->logits.size();
    const std::vector<float> first(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(count));
    const std::vector<float> without(logits.begin() + static_cast<std::ptrdiff_t>(count),
                                     logits.begin() + static_cast<std::ptrdiff_t>(2 * count));
    const std::vector<float> last(logits.begin() + static_cast<std::ptrdiff_t>(2 * count), logits.end());
    for (const auto* adapted : {&first, &last}) {
      expect_agreement(*adapted);
      if (precision == kernels::DType::kF32) {
        EXPECT_LE(largest_difference(*adapted), kTolerance);
      }
    }
    const auto base_logits = Sequence(base, room()).run(golden_->input_ids);
    // On CUDA another number of rows may be another kernel, whose last bits BF16 rounds to a neighbour.
    const bool rounds_elsewhere = precision == kernels::DType::kBF16 && device == kernels::Device::kGpu;
    const float allowed = rounds_elsewhere ? 3e-2f : 1e-3f;
    for (size_t i = 0; i < count; ++i) ASSERT_NEAR(without[i], base_logits[i], allowed);
    EXPECT_GT(largest_difference(without), 100 * kTolerance) << "the adapter changes nothing that could be seen";
  }
};

TEST_P(GoldenAdapter, BesideTheWeightsFp32LogitsMatchAtEveryPosition) {
  check(kernels::DType::kF32, kernels::Device::kCpu);
}

TEST_P(GoldenAdapter, BesideTheWeightsBf16AgreesWhereTheMarginDecides) {
  check(kernels::DType::kBF16, kernels::Device::kCpu);
}

TEST_P(GoldenAdapter, CudaBesideTheWeightsLogitsMatch) {
  SCD_SKIP_WITHOUT_GPU();
  check(kernels::DType::kF32, kernels::Device::kGpu);
  check(kernels::DType::kBF16, kernels::Device::kGpu);
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenAdapter, ::testing::Values("llama_lora", "qwen2_lora_patterns"),
                         [](const auto& param) { return std::string(param.param); });

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         ::testing::Values("llama", "llama3_rope_scaling", "llama_sharded_f16", "mistral",
                                           "mistral_window", "qwen2", "qwen3", "llama_lora", "qwen2_lora_patterns"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace scd
