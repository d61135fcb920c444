// Every op on CUDA against the same op on the CPU, whose own tests hold it to references in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/attention.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/ragged_batch.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "tests/support/gpu.h"
#include "tests/unit/kernels/on_cuda.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};

TEST_F(Cuda, CopiesThereAndBack) {
  for (const DType dtype : kDTypes) {
    OwnedMatrix m = random_matrix(37, 19, dtype, 1, 3);
    const OwnedMatrix before = m;
    const OnCuda there(m);
    for (int64_t r = 0; r < m.rows(); ++r) {
      for (int64_t c = 0; c < m.columns(); ++c) m.set(r, c, 0.0f);
    }
    copy(there.view(), m.view());
    expect_near(m, before, 0.0);
  }
}

TEST_F(Cuda, LargeCopiesOfPageLockedMemoryAreWhole) {
  constexpr int64_t kRows = 4500, kColumns = 1000;  // 18 MB
  HostStaging staging;
  const Matrix here = staging.matrix(kRows, kColumns);
  const DeviceBuffer memory(Device::kGpu, static_cast<size_t>(kRows * kColumns) * sizeof(float));
  const Matrix there{memory.data(), kRows, kColumns, kColumns, DType::kF32, Device::kGpu};
  for (int64_t r = 0; r < kRows; ++r) std::fill_n(here.row<float>(r), kColumns, static_cast<float>(r));
  copy(here, there);
  clear(here);
  copy(there, here);
  for (int64_t r = 0; r < kRows; ++r) {
    ASSERT_TRUE(std::ranges::all_of(std::span(here.row<float>(r), kColumns), [r](float x) {
      return x == static_cast<float>(r);
    })) << r;
  }
}

TEST_F(Cuda, LargeCopiesGoPieceByPiece) {
  for (const auto& [rows, columns, stride] : {std::array<int64_t, 3>{1, 9'000'001, 9'000'001}, {3001, 3000, 3011}}) {
    const auto values = static_cast<size_t>(rows * stride);
    std::vector<float> from(values), to(values, -1.0f);
    for (size_t i = 0; i < values; ++i) from[i] = static_cast<float>(i % 65521);
    const DeviceBuffer there(Device::kGpu, static_cast<size_t>(rows * columns) * sizeof(float));
    const Matrix dense{there.data(), rows, columns, columns, DType::kF32, Device::kGpu};
    copy(ConstMatrix{from.data(), rows, columns, stride}, dense);
    copy(dense, Matrix{to.data(), rows, columns, stride});
    for (size_t i = 0; i < values; ++i) {
      const bool between_rows = static_cast<int64_t>(i) % stride >= columns;
      ASSERT_EQ(to[i], between_rows ? -1.0f : from[i]) << i;
    }
    std::fill(to.begin(), to.end(), -1.0f);
    copy(dense, Matrix{to.data(), rows, columns, columns});
    for (size_t row = 0; row < static_cast<size_t>(rows); row += 500) {
      for (size_t column = 0; column < static_cast<size_t>(columns); ++column) {
        ASSERT_EQ(to[row * static_cast<size_t>(columns) + column], from[row * static_cast<size_t>(stride) + column]);
      }
    }
  }
}

TEST_F(Cuda, RopeMatchesTheCpuAtAnyPosition) {
  for (const int64_t head_dim : {2, 64, 128, 256}) {
    const RopeTable table = rope_table(head_dim);
    const std::vector<int32_t> positions{0, 1, 17, 4095, 131071, 5};
    for (const RopeDirection direction : {RopeDirection::kRotate, RopeDirection::kUnrotate}) {
      OwnedMatrix x = random_matrix(6, 3 * head_dim, DType::kF32, 7, 4);
      OwnedMatrix x_cuda = x;
      const OnCuda there(x_cuda);
      rope(x.view(), head_dim, positions, table, direction);
      rope(there.view(), head_dim, positions, table, direction);
      there.bring_back();
      expect_near(x_cuda, x, 1e-6);
    }
  }
}

TEST_F(Cuda, GreedyIdsMatchTheCpu) {
  OwnedMatrix logits = random_matrix(7, 1000, DType::kF32, 1, 9);
  logits.set(0, 999, 5.0f);
  logits.set(1, 0, 5.0f);
  logits.set(2, 40, 5.0f);  // equals: the smaller id
  logits.set(2, 700, 5.0f);
  logits.set(3, 5, std::nanf(""));
  const OnCuda there(logits);
  std::vector<int32_t> ids(7), ids_cuda(7, -1);
  const std::vector<SamplingOptions> greedy(7);
  sample_rows(logits.view(), greedy, std::vector<double>(7), ids);
  sample_rows(there.view(), greedy, std::vector<double>(7), ids_cuda);
  EXPECT_EQ(ids_cuda, ids);
  EXPECT_EQ(ids[2], 40);
}

struct Shape {
  int64_t query_heads, kv_heads, head_dim, page_tokens = 16, sliding_window = 0;
};
struct Chunk {
  int64_t first_position, rows;
};

// The same cache on both devices; pages start as NaN, so that reading past a sequence shows.
class PagedPair {
 public:
  PagedPair(const Shape& shape, DType dtype, const std::vector<Chunk>& chunks) : shape_(shape), chunks_(chunks) {
    constexpr int64_t kPages = 400;
    const auto elements = static_cast<size_t>(kPages * shape.kv_heads * shape.page_tokens * shape.head_dim);
    host_.assign(2 * elements * size_of(dtype), 0xff);
    there_ = DeviceBuffer(Device::kGpu, host_.size());
    const auto bytes = static_cast<int64_t>(host_.size() / 4);
    copy({host_.data(), 1, bytes, bytes}, {there_.data(), 1, bytes, bytes, DType::kF32, Device::kGpu});
    cpu_ = {.keys = host_.data(),
            .values = host_.data() + host_.size() / 2,
            .kv_heads = shape.kv_heads,
            .page_tokens = shape.page_tokens,
            .head_dim = shape.head_dim,
            .dtype = dtype,
            .pages = kPages};
    cuda_ = cpu_;
    cuda_.keys = there_.data();
    cuda_.values = there_.data() + there_.size() / 2;
    cuda_.device = Device::kGpu;
    std::vector<int32_t> free(kPages);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), std::mt19937(7));
    for (const Chunk& chunk : chunks) {
      const int64_t pages = (chunk.first_position + chunk.rows + shape.page_tokens - 1) / shape.page_tokens;
      pages_.emplace_back(free.end() - pages, free.end());
      free.resize(free.size() - static_cast<size_t>(pages));
    }
  }

  // What came before the chunks, then the chunks; on CUDA from the host and from there in turns.
  void write(uint32_t seed) {
    for (size_t s = 0; s < chunks_.size(); ++s) {
      const int64_t tokens = chunks_[s].first_position + chunks_[s].rows;
      OwnedMatrix keys = random_matrix(tokens, shape_.kv_heads * shape_.head_dim, DType::kF32, seed++, 2);
      OwnedMatrix values = random_matrix(tokens, shape_.kv_heads * shape_.head_dim, DType::kF32, seed++, 1);
      const SequenceRows all{pages_[s], 0, tokens, 0};
      write_kv(cpu_, {&all, 1}, keys.view(), values.view());
      if (s % 2 == 0) {
        write_kv(cuda_, {&all, 1}, keys.view(), values.view());
      } else {
        const OnCuda keys_there(keys), values_there(values);
        write_kv(cuda_, {&all, 1}, keys_there.view(), values_there.view());
      }
    }
  }

  void expect_equal_pages() {
    std::vector<uint8_t> back(host_.size());
    const auto bytes = static_cast<int64_t>(back.size() / 4);
    copy({there_.data(), 1, bytes, bytes, DType::kF32, Device::kGpu}, {back.data(), 1, bytes, bytes});
    EXPECT_EQ(std::memcmp(back.data(), host_.data(), back.size()), 0);
  }

  void expect_equal_attention(DType output_dtype, double allowed) {
    std::vector<SequenceRows> sequences;
    int64_t rows = 0;
    for (size_t s = 0; s < chunks_.size(); ++s) {
      sequences.push_back({pages_[s], rows, chunks_[s].rows, chunks_[s].first_position});
      rows += chunks_[s].rows;
    }
    OwnedMatrix queries = random_matrix(rows, shape_.query_heads * shape_.head_dim, DType::kF32, 99, 4);
    OwnedMatrix output(rows, queries.columns(), output_dtype, 8),
        output_cuda = random_matrix(rows, queries.columns(), output_dtype, 98, 8);
    const OnCuda queries_there(queries), output_there(output_cuda);
    AttentionArgs args{.queries = queries.view(),
                       .output = output.view(),
                       .kv = cpu_,
                       .sequences = sequences,
                       .query_heads = shape_.query_heads,
                       .scale = 3.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                       .sliding_window = shape_.sliding_window};
    paged_attention(args);
    RaggedBatch batch(Device::kGpu);
    batch.assign({}, sequences);
    args.queries = queries_there.view();
    args.output = output_there.view();
    args.kv = cuda_;
    args.sequences = batch.sequences();
    paged_attention(args);
    output_there.bring_back();
    expect_near(output_cuda, output, allowed);
  }

  PagedKv& cuda() { return cuda_; }
  const std::vector<int32_t>& pages(size_t s) const { return pages_[s]; }

 private:
  Shape shape_;
  std::vector<Chunk> chunks_;
  std::vector<uint8_t> host_;
  DeviceBuffer there_;
  PagedKv cpu_, cuda_;
  std::vector<std::vector<int32_t>> pages_;
};

// Values lie in [-1, 1]. Tensor cores round queries and weights to BF16, as AMX on the CPU does.
void check_attention(const Shape& shape, const std::vector<Chunk>& chunks) {
  for (const DType dtype : kDTypes) {
    PagedPair pair(shape, dtype, chunks);
    pair.write(1);
    for (const DType output : kDTypes) {
      pair.expect_equal_attention(output, dtype == DType::kBF16 ? 1.5e-2 : output == DType::kBF16 ? 8e-3 : 5e-6);
    }
  }
}

TEST_F(Cuda, PagesMatchTheCpuByteForByte) {
  for (const DType dtype : kDTypes) {
    for (const Shape& shape : {Shape{4, 2, 64}, {3, 3, 10, 5}, {8, 8, 128}}) {
      PagedPair pair(shape, dtype, {{15, 33}, {0, 1}, {100, 40}});
      pair.write(1);
      pair.expect_equal_pages();
    }
  }
}

TEST_F(Cuda, ReadsPagesToEitherDevice) {
  PagedPair pair({4, 2, 64}, DType::kBF16, {{0, 50}});
  OwnedMatrix keys = random_matrix(50, 128, DType::kBF16, 1), values = random_matrix(50, 128, DType::kBF16, 2);
  OwnedMatrix keys_f32(50, 128, DType::kF32), values_f32(50, 128, DType::kF32);
  convert(keys.view(), keys_f32.view());
  convert(values.view(), values_f32.view());
  const SequenceRows all{pair.pages(0), 0, 50, 0};
  write_kv(pair.cuda(), {&all, 1}, keys_f32.view(), values_f32.view());
  const SequenceRows part{pair.pages(0), 0, 20, 17};
  OwnedMatrix k(20, 128, DType::kF32, 3), v(20, 128, DType::kF32, 3), k_there(20, 128, DType::kF32, 3),
      v_there(20, 128, DType::kF32, 3);
  read_kv(pair.cuda(), part, k.view(), v.view());
  const OnCuda k_cuda(k_there), v_cuda(v_there);
  read_kv(pair.cuda(), part, k_cuda.view(), v_cuda.view());
  k_cuda.bring_back();
  v_cuda.bring_back();
  for (int64_t r = 0; r < 20; ++r) {
    for (int64_t c = 0; c < 128; ++c) {
      ASSERT_EQ(k.at(r, c), keys.at(17 + r, c));
      ASSERT_EQ(v.at(r, c), values.at(17 + r, c));
      ASSERT_EQ(k_there.at(r, c), keys.at(17 + r, c));
      ASSERT_EQ(v_there.at(r, c), values.at(17 + r, c));
    }
  }
}

TEST_F(Cuda, AttentionMatchesTheCpuOnAwkwardLengths) {
  for (const int64_t rows : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300}) {
    check_attention({4, 2, 64}, {{0, rows}});
    check_attention({4, 2, 128}, {{0, rows}});
  }
  for (const int64_t first : {1, 15, 16, 63, 64, 127, 128, 200}) {
    for (const int64_t rows : {1, 16, 140}) check_attention({4, 1, 128}, {{first, rows}});
  }
}

TEST_F(Cuda, AttentionSharesKeysInEveryGrouping) {
  for (const Shape& shape : {Shape{9, 3, 64}, {8, 1, 64}, {5, 5, 32}, {14, 2, 64}, {32, 8, 128}, {16, 1, 64}}) {
    check_attention(shape, {{3, 37}, {50, 1}});
    check_attention(shape, {{90, 1}, {0, 1}, {257, 1}});
  }
}

TEST_F(Cuda, AttentionTakesAnyHeadAndPageSize) {
  for (const int64_t head_dim : {2, 20, 32, 80, 96, 256}) check_attention({2, 1, head_dim}, {{20, 33}, {9, 1}});
  for (const int64_t page_tokens : {1, 5, 32, 64}) {
    check_attention({2, 2, 64, page_tokens}, {{7, 33}, {30, 1}});
    check_attention({2, 2, 64, page_tokens}, {{7, 1}, {90, 1}});
  }
}

TEST_F(Cuda, AttentionRunsRaggedBatches) {
  check_attention({6, 2, 64}, {{0, 50}, {17, 1}, {0, 1}, {99, 133}, {64, 10}, {160, 1}});
  check_attention({8, 2, 128}, {{1300, 1}, {5, 1}, {0, 1}, {63, 1}, {64, 1}, {700, 1}});  // decoding
}

TEST_F(Cuda, AttentionSeesOnlyTheSlidingWindow) {
  for (const int64_t window : {1, 2, 16, 33, 100, 1000}) {
    check_attention({4, 2, 64, 16, window}, {{0, 70}, {150, 140}, {180, 1}});
    check_attention({4, 2, 128, 16, window}, {{300, 1}, {180, 1}, {3, 1}});
  }
}

TEST_F(Cuda, ReplaysRecordedWorkOnNewNumbers) {
  OwnedMatrix x = random_matrix(4, 64, DType::kF32, 1), y(4, 64, DType::kF32), y_cpu(4, 64, DType::kF32);
  const std::vector<float> weight = random_vector(64, 2);
  const DeviceVector weight_there(weight, Device::kGpu);
  const OnCuda x_there(x), y_there(y);
  RecordedWork work;
  EXPECT_FALSE(work.replayable());
  work.record([&] { rms_norm(x_there.view(), weight_there, 1e-5f, y_there.view()); });
  OwnedMatrix other = random_matrix(4, 64, DType::kF32, 3);
  copy(other.view(), x_there.view());
  work.replay();
  y_there.bring_back();
  rms_norm(other.view(), weight, 1e-5f, y_cpu.view());
  expect_near(y, y_cpu, 2e-6);
}

TEST_F(Cuda, RefusesMatricesOfTheOtherDevice) {
  OwnedMatrix x = random_matrix(2, 8, DType::kF32, 1), y = x;
  const OnCuda there(x);
  const std::vector<float> weight(8);
  EXPECT_THROW(rms_norm(there.view(), weight, 1e-5f, y.view()), std::invalid_argument);
  EXPECT_THROW(gemm_f32({.a = there.view(), .b = y.view(), .c = y.view()}), std::invalid_argument);
}

TEST(GpuDevice, SaysWhyItCannotBeUsed) {
  const GpuDevice& device = gpu_device();
  if (device.usable) GTEST_SKIP() << "a GPU is here: " << device.name;
  EXPECT_FALSE(device.reason.empty());
  EXPECT_THROW(use_gpu_device(0), std::runtime_error);
}

}  // namespace
}  // namespace scd::kernels::testing
