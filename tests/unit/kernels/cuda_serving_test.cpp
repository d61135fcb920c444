// Ops of CUDA that serve a batch of sequences: keys and values on their way into pages, and sampling.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/paged_kv.h"
#include "kernels/ragged_batch.h"
#include "kernels/sampling.h"
#include "tests/unit/kernels/on_cuda.h"

namespace scd::kernels::testing {
namespace {

constexpr int64_t kPages = 12, kPageTokens = 16, kQueryHeads = 3, kKvHeads = 2;

// Pages filled with what a test never writes.
class Pages {
 public:
  Pages(int64_t head_dim, DType dtype, Device device) : head_dim_(head_dim), dtype_(dtype), device_(device) {
    fill_normal(all(), 1, 1.0f);
  }
  PagedKv kv() {
    const Matrix both = all();
    const auto half = static_cast<size_t>(both.rows / 2 * both.columns) * size_of(dtype_);
    return {.keys = both.data,
            .values = static_cast<std::byte*>(both.data) + half,
            .kv_heads = kKvHeads,
            .page_tokens = kPageTokens,
            .head_dim = head_dim_,
            .dtype = dtype_,
            .device = device_,
            .pages = kPages};
  }
  OwnedMatrix brought() {
    const Matrix both = all();
    OwnedMatrix here(both.rows, both.columns, dtype_);
    copy(both, here.view());
    return here;
  }

 private:
  Matrix all() { return memory_.matrix(2 * kPages * kPageTokens, kKvHeads * head_dim_, dtype_, device_); }
  const int64_t head_dim_;
  const DType dtype_;
  const Device device_;
  GrowBuffer memory_;
};

TEST_F(Cuda, RopeOnTheWayIntoPagesMatchesTheCpu) {
  struct Chunk {
    int64_t rows, first_position, padding;
  };
  const std::vector<int32_t> first_pages{3, 0, 7, 11, 9}, second_pages{5};
  for (const Chunk& chunk : {Chunk{35, 6, 4}, {1, 0, 0}, {3, 15, 3}, {70, 10, 8}}) {
    const int64_t rows = chunk.rows + 1;
    const std::vector<SequenceRows> sequences{{first_pages, 0, chunk.rows, chunk.first_position},
                                              {second_pages, chunk.rows, 1, 15}};
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    std::iota(positions.begin(), positions.end() - 1, static_cast<int32_t>(chunk.first_position));
    positions.back() = 15;
    for (const int64_t head_dim : {2, 10, 64, 128, 256}) {
      const RopeTable table = rope_table(head_dim);
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        OwnedMatrix qkv = random_matrix(rows, (kQueryHeads + 2 * kKvHeads) * head_dim, DType::kF32, 5, chunk.padding);
        OwnedMatrix qkv_cuda = qkv;
        const OnCuda there(qkv_cuda);
        Pages here_pages(head_dim, dtype, Device::kCpu), there_pages(head_dim, dtype, Device::kGpu);
        rope_write_kv(here_pages.kv(), sequences, positions, table, qkv.view());
        rope_write_kv(there_pages.kv(), sequences, positions, table, there.view());
        there.bring_back();
        ASSERT_TRUE(qkv_cuda.padding_is_untouched());
        OwnedMatrix queries(rows, kQueryHeads * head_dim, DType::kF32), queries_cuda = queries;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < queries.columns(); ++c) {
            queries.set(r, c, static_cast<float>(qkv.at(r, c)));
            queries_cuda.set(r, c, static_cast<float>(qkv_cuda.at(r, c)));
          }
        }
        expect_near(queries_cuda, queries, 2e-6);
        expect_near(there_pages.brought(), here_pages.brought(), tolerance(dtype));
      }
    }
  }
}

TEST_F(Cuda, RopeIntoPagesRefusesWhatDoesNotFit) {
  Pages pages(64, DType::kF32, Device::kGpu);
  const std::vector<int32_t> ids{kPages};
  const SequenceRows outside{ids, 0, 1, 0};
  OwnedMatrix qkv = random_matrix(1, (kQueryHeads + 2 * kKvHeads) * 64, DType::kF32, 5);
  const OnCuda there(qkv);
  RopeTable table{std::vector<float>(32, 1.0f)};
  const std::vector<int32_t> position{0};
  EXPECT_THROW(rope_write_kv(pages.kv(), {&outside, 1}, position, table, there.view()), std::invalid_argument);
  table.inverse_frequencies.pop_back();
  const std::vector<int32_t> inside_ids{0};
  const SequenceRows inside{inside_ids, 0, 1, 0};
  EXPECT_THROW(rope_write_kv(pages.kv(), {&inside, 1}, position, table, there.view()), std::invalid_argument);
}

TEST_F(Cuda, ChangedLogitsAreThoseOfTheCpu) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (const int count :
       {0, 1, 33, 16385, 70000}) {  // also more than lie on the GPU at once, and than are on their way
    OwnedMatrix here = random_matrix(5, 20000, DType::kF32, 3, 4);
    const OnCuda there(here);
    std::vector<LogitChange> changes;
    for (int i = 0; i < count; ++i) {
      changes.push_back({i % 5, i / 5 * 37 % 20000, i % 2 == 0 ? 1.0f : 1.3f, i % 3 == 0 ? kNever : 0.25f * i});
    }
    OwnedMatrix back = here;
    change_logits(here.view(), changes);
    change_logits(there.view(), changes);
    copy(there.view(), back.view());
    for (int64_t r = 0; r < 5; ++r) {
      for (int64_t id = 0; id < 20000; ++id) {
        ASSERT_EQ(back.at(r, id), here.at(r, id)) << r << " " << id;
      }
    }
  }
  OwnedMatrix logits = random_matrix(2, 10, DType::kF32, 3);
  const OnCuda there(logits);
  for (const LogitChange outside : {LogitChange{2, 0}, LogitChange{-1, 0}, LogitChange{0, 10}, LogitChange{0, -1}}) {
    EXPECT_THROW(change_logits(there.view(), std::span(&outside, 1)), std::invalid_argument);
  }
}

// Rows of options that reach every way of a choice, over the same kind of logits.
constexpr SamplingOptions kKinds[] = {{.temperature = 0.0f},
                                      {.temperature = 1.0f},
                                      {.temperature = 0.7f, .min_p = 0.05f},
                                      {.temperature = 0.9f, .top_k = 1},
                                      {.temperature = 0.9f, .top_k = 40},
                                      {.temperature = 1.3f, .top_p = 0.9f},
                                      {.temperature = 0.8f, .top_k = 100, .top_p = 0.8f, .min_p = 0.02f},
                                      {.temperature = 1.0f, .top_p = 1e-6f},
                                      {.temperature = 3.0f, .top_p = 0.999f},  // more than the list holds
                                      {.temperature = 1.0f, .top_k = 5000},
                                      {.temperature = 1e-4f, .top_p = 0.5f}};
constexpr auto kRows = static_cast<int64_t>(std::size(kKinds));

template <class Logit>
OwnedMatrix rows_of(int64_t vocab, Logit logit) {
  OwnedMatrix logits(kRows, vocab, DType::kF32);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < vocab; ++c) logits.set(r, c, logit(c));
  }
  return logits;
}

// How many of so many draws differ between the devices.
int differing_draws(OwnedMatrix logits, int rounds) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform;
  const OnCuda there(logits);
  int differing = 0;
  for (int round = 0; round < rounds; ++round) {
    std::vector<double> uniforms(std::size(kKinds));
    for (double& u : uniforms) u = round == 0 ? std::nextafter(1.0, 0.0) : round == 1 ? 0.0 : uniform(random);
    std::vector<int32_t> here_ids(std::size(kKinds)), there_ids(std::size(kKinds));
    sample_rows(logits.view(), kKinds, uniforms, here_ids);
    sample_rows(there.view(), kKinds, uniforms, there_ids);
    for (size_t r = 0; r < std::size(kKinds); ++r) differing += here_ids[r] == there_ids[r] ? 0 : 1;
    EXPECT_EQ(here_ids[0], there_ids[0]);
    EXPECT_EQ(here_ids[3], there_ids[3]);
  }
  return differing;
}

TEST_F(Cuda, SampledIdsAreThoseOfTheCpu) {
  int differing = 0;
  for (const int64_t vocab : {1, 33, 1000, 128256}) {
    OwnedMatrix logits = random_matrix(kRows, vocab, DType::kF32, 3, 4);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t c = 0; c < vocab; ++c) logits.set(r, c, 3.0f * static_cast<float>(logits.at(r, c)));
    }
    if (vocab > 100) {
      logits.set(1, 17, std::numeric_limits<float>::quiet_NaN());
      logits.set(5, 3, -std::numeric_limits<float>::infinity());
    }
    differing += differing_draws(logits, vocab > 1000 ? 5 : 20);
  }
  EXPECT_LE(differing, 2);  // where the random number falls within rounding of a border
}

// The order of ids decides which of them are kept.
TEST_F(Cuda, OfEqualLogitsTheFirstAreKeptAsOnTheCpu) {
  const auto equals = [](int64_t id) { return id % 7 == 3 ? 1.0f : id % 2 == 0 ? 0.0f : -0.0f; };
  for (const int64_t vocab : {7, 700, 3000}) {  // 3,000 are more than the list holds
    EXPECT_EQ(differing_draws(rows_of(vocab, equals), 20), 0) << vocab;
  }
}

// The largest vocabulary of known models, all of it weighing the same, and rows in which nothing can be chosen.
TEST_F(Cuda, FlatAndEmptyRowsAreSampledAsOnTheCpu) {
  EXPECT_LE(differing_draws(rows_of(262144, [](int64_t) { return -3.0f; }), 3), 2);
  EXPECT_EQ(differing_draws(rows_of(40, [](int64_t) { return -std::numeric_limits<float>::infinity(); }), 3), 0);
}

}  // namespace
}  // namespace scd::kernels::testing
