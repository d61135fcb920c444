#include "kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/cpu_level.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

struct Shape {
  int64_t query_heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t page_tokens = 16;
  int64_t sliding_window = 0;
};

struct Chunk {
  int64_t first_position;
  int64_t rows;
};

// A pool of pages handed out in shuffled order; pages start as NaN, so that reading past a sequence shows.
class Cache {
 public:
  Cache(const Shape& shape, DType dtype, int64_t pages)
      : shape_(shape), dtype_(dtype), free_(static_cast<size_t>(pages)) {
    const size_t elements = static_cast<size_t>(pages * shape.kv_heads * shape.page_tokens * shape.head_dim);
    memory_.assign(2 * elements * size_of(dtype), 0xff);
    std::iota(free_.begin(), free_.end(), 0);
    std::shuffle(free_.begin(), free_.end(), std::mt19937(7));
  }
  PagedKv view() {
    return {.keys = memory_.data(),
            .values = memory_.data() + memory_.size() / 2,
            .kv_heads = shape_.kv_heads,
            .page_tokens = shape_.page_tokens,
            .head_dim = shape_.head_dim,
            .dtype = dtype_,
            .device = Device::kCpu,
            .pages = static_cast<int64_t>(memory_.size() / 2 / page_bytes())};
  }
  std::vector<int32_t> take(int64_t tokens) {
    std::vector<int32_t> pages;
    for (int64_t t = 0; t < tokens; t += shape_.page_tokens) {
      pages.push_back(free_.back());
      free_.pop_back();
    }
    return pages;
  }

 private:
  size_t page_bytes() const {
    return static_cast<size_t>(shape_.kv_heads * shape_.page_tokens * shape_.head_dim) * size_of(dtype_);
  }
  Shape shape_;
  DType dtype_;
  std::vector<int32_t> free_;
  std::vector<uint8_t> memory_;
};

// Sequences with all their keys, values and queries known; chunks of them run through the cache.
class Batch {
 public:
  Batch(const Shape& shape, DType dtype, const std::vector<Chunk>& chunks)
      : shape_(shape), dtype_(dtype), chunks_(chunks), cache_(shape, dtype, 200) {
    uint32_t seed = 1;
    for (const Chunk& chunk : chunks) {
      const int64_t tokens = chunk.first_position + chunk.rows;
      keys_.push_back(random_matrix(tokens, shape.kv_heads * shape.head_dim, DType::kF32, seed++));
      values_.push_back(random_matrix(tokens, shape.kv_heads * shape.head_dim, DType::kF32, seed++));
      queries_.push_back(random_matrix(tokens, shape.query_heads * shape.head_dim, DType::kF32, seed++));
      pages_.push_back(cache_.take(tokens));
      const SequenceRows all{pages_.back(), 0, tokens, 0};
      write_kv(cache_.view(), {&all, 1}, keys_.back().view(), values_.back().view());
    }
  }

  // The rows of all chunks, back to back.
  OwnedMatrix run(DType output_dtype) {
    int64_t rows = 0;
    std::vector<SequenceRows> sequences;
    for (size_t s = 0; s < chunks_.size(); ++s) {
      sequences.push_back({pages_[s], rows, chunks_[s].rows, chunks_[s].first_position});
      rows += chunks_[s].rows;
    }
    OwnedMatrix queries(rows, shape_.query_heads * shape_.head_dim, DType::kF32, 3);
    for (size_t s = 0; s < chunks_.size(); ++s) {
      for (int64_t r = 0; r < chunks_[s].rows; ++r) {
        for (int64_t c = 0; c < queries.columns(); ++c) {
          const double query = queries_[s].at(chunks_[s].first_position + r, c);
          queries.set(sequences[s].first_row + r, c, static_cast<float>(query));
        }
      }
    }
    OwnedMatrix output(rows, queries.columns(), output_dtype, 5);
    paged_attention({.queries = queries.view(),
                     .output = output.view(),
                     .kv = cache_.view(),
                     .sequences = sequences,
                     .query_heads = shape_.query_heads,
                     .scale = scale(),
                     .sliding_window = shape_.sliding_window});
    EXPECT_TRUE(output.padding_is_untouched());
    return output;
  }

  // The definition, in double: softmax over the visible keys of what the cache holds.
  std::vector<double> reference(size_t s, int64_t row, int64_t head) const {
    const int64_t position = chunks_[s].first_position + row;
    const int64_t kv_column = head / (shape_.query_heads / shape_.kv_heads) * shape_.head_dim;
    const int64_t first = shape_.sliding_window == 0 ? 0 : std::max<int64_t>(0, position - shape_.sliding_window + 1);
    std::vector<double> result(static_cast<size_t>(shape_.head_dim));
    double total = 0.0;
    for (int64_t p = first; p <= position; ++p) {
      double dot = 0.0;
      for (int64_t d = 0; d < shape_.head_dim; ++d) {
        dot += queries_[s].at(position, head * shape_.head_dim + d) * rounded_to(dtype_, keys_[s].at(p, kv_column + d));
      }
      const double weight = std::exp(dot * scale());
      total += weight;
      for (int64_t d = 0; d < shape_.head_dim; ++d) {
        result[static_cast<size_t>(d)] += weight * rounded_to(dtype_, values_[s].at(p, kv_column + d));
      }
    }
    for (double& value : result) value /= total;
    return result;
  }

  float scale() const { return 3.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  const Shape& shape() const { return shape_; }

 private:
  Shape shape_;
  DType dtype_;
  std::vector<Chunk> chunks_;
  Cache cache_;
  std::vector<OwnedMatrix> keys_, values_, queries_;
  std::vector<std::vector<int32_t>> pages_;
};

// Values lie in [-1, 1]. The AMX path rounds queries and weights to BF16.
double tolerance(CpuLevel level, DType cache, DType output) {
  if (level >= CpuLevel::kAvx512Bf16 && cache == DType::kBF16) return 1.5e-2;
  return output == DType::kBF16 ? 4e-3 : 5e-6;
}

void check(const Shape& shape, DType dtype, const std::vector<Chunk>& chunks, CpuLevel level,
           DType output_dtype = DType::kF32) {
  const ScopedCpuLevelLimit limit(level);
  Batch batch(shape, dtype, chunks);
  const OwnedMatrix output = batch.run(output_dtype);
  int64_t first_row = 0;
  for (size_t s = 0; s < chunks.size(); ++s) {
    for (int64_t r = 0; r < chunks[s].rows; ++r) {
      for (int64_t head = 0; head < shape.query_heads; ++head) {
        const std::vector<double> expected = batch.reference(s, r, head);
        for (int64_t d = 0; d < shape.head_dim; ++d) {
          ASSERT_NEAR(output.at(first_row + r, head * shape.head_dim + d), expected[static_cast<size_t>(d)],
                      tolerance(level, dtype, output_dtype))
              << "sequence " << s << " row " << r << " head " << head << " element " << d;
        }
      }
    }
    first_row += chunks[s].rows;
  }
}

TEST(Attention, AveragesByHand) {
  // One head of two elements; scores 0 and ln 3, so weights 1/4 and 3/4.
  const Shape shape{1, 1, 2};
  Cache cache(shape, DType::kF32, 1);
  const std::vector<int32_t> pages = cache.take(2);
  const std::vector<float> keys{0, 0, std::log(3.0f), 0};
  const std::vector<float> values{4, 8, 0, -8};
  const SequenceRows both{pages, 0, 2, 0};
  write_kv(cache.view(), {&both, 1}, matrix(keys.data(), 2, 2), matrix(values.data(), 2, 2));
  const std::vector<float> queries{5, 5, 1, 9};
  std::vector<float> output(4);
  paged_attention({.queries = matrix(queries.data(), 2, 2),
                   .output = matrix(output.data(), 2, 2),
                   .kv = cache.view(),
                   .sequences = {&both, 1},
                   .query_heads = 1,
                   .scale = 1.0f});
  EXPECT_FLOAT_EQ(output[0], 4.0f);  // sees itself only
  EXPECT_FLOAT_EQ(output[1], 8.0f);
  EXPECT_FLOAT_EQ(output[2], 1.0f);
  EXPECT_FLOAT_EQ(output[3], -4.0f);
}

class AttentionGrid : public ::testing::TestWithParam<std::tuple<CpuLevel, DType>> {
 protected:
  void SetUp() override {
    if (cpu_level() < level()) GTEST_SKIP() << "this CPU does not offer level " << static_cast<int>(level());
  }
  CpuLevel level() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(AttentionGrid, MatchesTheReferenceOnAwkwardLengths) {
  for (const int64_t rows : {1, 2, 15, 16, 17, 31, 33, 64, 100}) check({4, 2, 64}, dtype(), {{0, rows}}, level());
}

TEST_P(AttentionGrid, ContinuesAtAnyPosition) {
  for (const int64_t first : {1, 15, 16, 31, 127, 128, 200}) {
    for (const int64_t rows : {1, 16, 40}) check({4, 2, 32}, dtype(), {{first, rows}}, level());
  }
}

TEST_P(AttentionGrid, SharesKeysInEveryGrouping) {
  check({9, 3, 64}, dtype(), {{3, 37}, {50, 1}}, level());  // SmolLM2
  check({8, 1, 64}, dtype(), {{3, 37}, {50, 1}}, level());  // multi-query
  check({5, 5, 32}, dtype(), {{3, 37}, {50, 1}}, level());  // one KV head a query head
  check({14, 2, 64}, dtype(), {{0, 20}}, level());          // Qwen2 0.5B
}

TEST_P(AttentionGrid, TakesAnyHeadSize) {
  for (const int64_t head_dim : {2, 16, 20, 80, 96, 128, 256}) {
    check({2, 1, head_dim}, dtype(), {{20, 33}, {9, 1}}, level());
  }
}

TEST_P(AttentionGrid, TakesAnyPageSize) {
  for (const int64_t page_tokens : {1, 5, 32, 64}) check({2, 2, 32, page_tokens}, dtype(), {{7, 33}, {30, 1}}, level());
}

TEST_P(AttentionGrid, RunsRaggedBatches) {
  check({6, 2, 64}, dtype(), {{0, 50}, {17, 1}, {0, 1}, {99, 33}, {64, 0}, {160, 1}}, level());
}

TEST_P(AttentionGrid, SeesOnlyTheSlidingWindow) {
  for (const int64_t window : {1, 2, 16, 33, 100, 1000}) {
    check({4, 2, 32, 16, window}, dtype(), {{0, 70}, {150, 40}, {180, 1}}, level());
  }
}

TEST_P(AttentionGrid, WritesBothOutputDTypes) { check({4, 2, 64}, dtype(), {{5, 33}, {20, 1}}, level(), DType::kBF16); }

TEST_P(AttentionGrid, MergesKeyRangesOfLongContexts) { check({2, 1, 16}, dtype(), {{1300, 1}, {1500, 2}}, level()); }

std::string grid_name(const ::testing::TestParamInfo<AttentionGrid::ParamType>& info) {
  return "Level" + std::to_string(static_cast<int>(std::get<0>(info.param))) +
         (std::get<1>(info.param) == DType::kF32 ? "F32" : "BF16");
}

INSTANTIATE_TEST_SUITE_P(All, AttentionGrid,
                         ::testing::Combine(::testing::Values(CpuLevel::kPortable, CpuLevel::kAvx512,
                                                              CpuLevel::kAvx512Bf16, CpuLevel::kAmx),
                                            ::testing::Values(DType::kF32, DType::kBF16)),
                         grid_name);

TEST(Attention, GivesTheSameInChunksAsAtOnce) {
  const Shape shape{9, 3, 64};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const OwnedMatrix whole = Batch(shape, dtype, {{0, 150}}).run(DType::kF32);
    for (const int64_t cut : {1, 40, 149}) {
      // Batch draws a sequence's tensors by its length alone, so both hold the same.
      const OwnedMatrix tail = Batch(shape, dtype, {{cut, 150 - cut}}).run(DType::kF32);
      for (int64_t r = 0; r < tail.rows(); ++r) {
        for (int64_t c = 0; c < tail.columns(); ++c) {
          ASSERT_NEAR(tail.at(r, c), whole.at(cut + r, c), dtype == DType::kF32 ? 2e-6 : 2e-2);
        }
      }
    }
  }
}

TEST(Attention, RefusesWhatDoesNotFit) {
  const Shape shape{4, 2, 8};
  Cache cache(shape, DType::kF32, 4);
  const std::vector<int32_t> pages = cache.take(20);
  OwnedMatrix queries = random_matrix(20, 32, DType::kF32, 1);
  OwnedMatrix output = random_matrix(20, 32, DType::kF32, 2);
  const SequenceRows good{pages, 0, 20, 0};
  AttentionArgs args{.queries = queries.view(),
                     .output = output.view(),
                     .kv = cache.view(),
                     .sequences = {&good, 1},
                     .query_heads = 4,
                     .scale = 1.0f};
  const auto refused_with = [&args](auto change) {
    AttentionArgs changed = args;
    change(changed);
    EXPECT_THROW(paged_attention(changed), std::invalid_argument);
  };
  refused_with([](AttentionArgs& a) { a.query_heads = 3; });
  refused_with([](AttentionArgs& a) { a.sliding_window = -1; });
  refused_with([](AttentionArgs& a) { a.queries.columns = 16; });
  refused_with([](AttentionArgs& a) { a.output.rows = 19; });
  refused_with([](AttentionArgs& a) { a.kv.keys = nullptr; });
  const SequenceRows past_the_batch{pages, 1, 20, 0};
  const SequenceRows too_few_pages{pages, 0, 20, 13};
  const std::vector<int32_t> foreign{0, 4};
  const SequenceRows outside_the_pool{foreign, 0, 20, 0};
  for (const SequenceRows& bad : {past_the_batch, too_few_pages, outside_the_pool}) {
    refused_with([&bad](AttentionArgs& a) { a.sequences = {&bad, 1}; });
  }
}

TEST(PagedKv, ReadsBackWhatItWrote) {
  const Shape shape{3, 3, 10};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Cache cache(shape, dtype, 8);
    const std::vector<int32_t> pages = cache.take(50);
    OwnedMatrix keys = random_matrix(33, 30, dtype, 1);
    OwnedMatrix values = random_matrix(33, 30, dtype, 2);
    OwnedMatrix keys_f32(33, 30, DType::kF32), values_f32(33, 30, DType::kF32);
    for (int64_t r = 0; r < 33; ++r) {
      for (int64_t c = 0; c < 30; ++c) {
        keys_f32.set(r, c, static_cast<float>(keys.at(r, c)));
        values_f32.set(r, c, static_cast<float>(values.at(r, c)));
      }
    }
    const SequenceRows rows{pages, 0, 33, 15};  // crosses pages
    write_kv(cache.view(), {&rows, 1}, keys_f32.view(), values_f32.view());
    OwnedMatrix keys_back(20, 30, DType::kF32, 4), values_back(20, 30, DType::kF32, 4);
    const SequenceRows part{pages, 0, 20, 20};
    read_kv(cache.view(), part, keys_back.view(), values_back.view());
    for (int64_t r = 0; r < 20; ++r) {
      for (int64_t c = 0; c < 30; ++c) {
        ASSERT_EQ(keys_back.at(r, c), keys.at(5 + r, c));
        ASSERT_EQ(values_back.at(r, c), values.at(5 + r, c));
      }
    }
    EXPECT_TRUE(keys_back.padding_is_untouched());
    const SequenceRows past_the_pages{pages, 0, 20, 45};
    EXPECT_THROW(read_kv(cache.view(), past_the_pages, keys_back.view(), values_back.view()), std::invalid_argument);
  }
}

}  // namespace
}  // namespace scd::kernels::testing
