// Rows of both types to pages and back: the CPU by hand, CUDA against the CPU to the bit.
#include "kernels/paged_kv.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/grow_buffer.h"
#include "tests/support/gpu.h"

namespace scd::kernels::testing {
namespace {

constexpr int64_t kPages = 9;
const std::vector<int32_t> kPageIds{7, 2, 8, 0, 5};

struct Shape {
  int64_t kv_heads, head_dim, page_tokens;
};
const Shape kShapes[] = {{2, 64, 16}, {1, 1, 1}, {3, 10, 5}, {8, 128, 16}};

// Any bits at all, on the host.
std::vector<std::byte> any_bits(size_t bytes, uint32_t seed) {
  std::vector<std::byte> made(bytes);
  std::mt19937 random(seed);
  for (std::byte& byte : made) byte = static_cast<std::byte>(random());
  return made;
}

// A cache on a device that holds such bytes.
class Cache {
 public:
  Cache(const Shape& shape, DType dtype, Device device, uint32_t seed)
      : bytes_(any_bits(size_t{2} * static_cast<size_t>(kPages * shape.page_tokens * shape.kv_heads * shape.head_dim) *
                            size_of(dtype),
                        seed)),
        memory_(buffer_of(bytes_, device)),
        kv_{.keys = memory_.data(),
            .values = memory_.data() + bytes_.size() / 2,
            .kv_heads = shape.kv_heads,
            .page_tokens = shape.page_tokens,
            .head_dim = shape.head_dim,
            .dtype = dtype,
            .device = device,
            .pages = kPages} {}
  const PagedKv& kv() const { return kv_; }
  std::vector<std::byte> brought() {
    const auto words = static_cast<int64_t>(bytes_.size() / 2);
    copy({memory_.data(), 1, words, words, DType::kBF16, kv_.device}, {bytes_.data(), 1, words, words, DType::kBF16});
    return bytes_;
  }

 private:
  std::vector<std::byte> bytes_;
  DeviceBuffer memory_;
  PagedKv kv_;
};

// Keys beside values on the host, their bits.
std::vector<std::byte> read(const Cache& cache, const SequenceRows& sequence, DType dtype, Device device) {
  const int64_t width = cache.kv().kv_heads * cache.kv().head_dim;
  GrowBuffer memory, here_memory;
  const Matrix rows = memory.matrix(sequence.rows, 2 * width, dtype, device);
  read_kv(cache.kv(), sequence, columns_of(rows, 0, width), columns_of(rows, width, width));
  const Matrix here = here_memory.matrix(rows.rows, rows.columns, dtype);
  copy(rows, here);
  const auto* bytes = static_cast<const std::byte*>(here.data);
  return {bytes, bytes + static_cast<size_t>(rows.rows * rows.columns) * size_of(dtype)};
}

TEST(PagedKv, RowsOfBfloat16AreRoundedToNearestEven) {
  const uint32_t stored[] = {0x3f808000, 0x3f818000, 0x3f808001, 0x7f7fffff, 0xff800000, 0x7f800001, 0xffc12345};
  const uint16_t rounded[] = {0x3f80, 0x3f82, 0x3f81, 0x7f80, 0xff80, 0x7fc0, 0xffc1};
  std::vector<float> keys, values(std::size(stored), 1.0f);
  for (const uint32_t bits : stored) keys.push_back(std::bit_cast<float>(bits));
  const PagedKv kv{.keys = keys.data(), .values = values.data(), .kv_heads = 1, .page_tokens = 7, .head_dim = 1};
  BFloat16 k[7], v[7];
  const std::vector<int32_t> page{0};
  read_kv(kv, {page, 0, 7, 0}, matrix(k, 7, 1), matrix(v, 7, 1));
  for (size_t i = 0; i < std::size(stored); ++i) {
    EXPECT_EQ(k[i].bits, rounded[i]) << i;
    EXPECT_EQ(v[i].bits, 0x3f80) << i;
  }
  const SequenceRows one{page, 0, 1, 3};
  write_kv(kv, {&one, 1}, matrix(k + 1, 1, 1), matrix(k + 2, 1, 1));
  EXPECT_EQ(std::bit_cast<uint32_t>(keys[3]), 0x3f820000U);
  EXPECT_EQ(std::bit_cast<uint32_t>(values[3]), 0x3f810000U);
  EXPECT_EQ(std::bit_cast<uint32_t>(keys[2]), 0x3f808001U);
}

TEST(PagedKv, RefusesRowsOfTwoTypesOrOfAnother) {
  std::vector<float> memory(64);
  const PagedKv kv{.keys = memory.data(), .values = memory.data() + 32, .kv_heads = 2, .page_tokens = 4, .head_dim = 4};
  const std::vector<int32_t> page{0};
  const SequenceRows one{page, 0, 1, 0};
  float row[8] = {};
  BFloat16 narrow[8] = {};
  EXPECT_THROW(read_kv(kv, one, matrix(row, 1, 8), matrix(narrow, 1, 8)), std::invalid_argument);
  EXPECT_THROW(write_kv(kv, {&one, 1}, matrix(narrow, 1, 8), matrix(row, 1, 8)), std::invalid_argument);
  const Matrix half{narrow, 1, 8, 8, DType::kF16};
  EXPECT_THROW(read_kv(kv, one, half, half), std::invalid_argument);
  EXPECT_THROW(write_kv(kv, {&one, 1}, half, half), std::invalid_argument);
}

TEST(PagedKvOnDevice, ReadsRowsOfEitherTypeAsTheCpuDoes) {
  SCD_SKIP_WITHOUT_GPU();
  for (const Shape& shape : kShapes) {
    for (const DType stored : {DType::kF32, DType::kBF16}) {
      const Cache cpu(shape, stored, Device::kCpu, 3), cuda(shape, stored, Device::kGpu, 3);
      for (const auto& [first, rows] : {std::pair<int64_t, int64_t>(0, 1), {2, 3}, {0, 5}}) {
        const SequenceRows sequence{kPageIds, 0, rows, first};
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const std::vector<std::byte> expected = read(cpu, sequence, dtype, Device::kCpu);
          EXPECT_EQ(read(cuda, sequence, dtype, Device::kGpu), expected) << rows << " rows from " << first;
          EXPECT_EQ(read(cuda, sequence, dtype, Device::kCpu), expected) << rows << " rows from " << first;
        }
      }
    }
  }
}

TEST(PagedKvOnDevice, WritesRowsOfBfloat16AsTheCpuDoes) {
  SCD_SKIP_WITHOUT_GPU();
  for (const Shape& shape : kShapes) {
    for (const DType stored : {DType::kF32, DType::kBF16}) {
      const int64_t width = shape.kv_heads * shape.head_dim, rows = std::min<int64_t>(5 * shape.page_tokens - 2, 30);
      if (rows < 1) continue;
      std::vector<BFloat16> values(static_cast<size_t>(2 * rows * width));
      std::mt19937 random(4);
      for (BFloat16& value : values) value.bits = static_cast<uint16_t>(random() & 0xbfffU);  // finite
      const Matrix here = matrix(values.data(), rows, 2 * width);
      GrowBuffer memory;
      const Matrix there = memory.matrix(rows, 2 * width, DType::kBF16, Device::kGpu);
      copy(here, there);
      const SequenceRows sequence{kPageIds, 0, rows, 1};
      Cache cpu(shape, stored, Device::kCpu, 5), from_host(shape, stored, Device::kGpu, 5),
          from_there(shape, stored, Device::kGpu, 5);
      write_kv(cpu.kv(), {&sequence, 1}, columns_of(here, 0, width), columns_of(here, width, width));
      write_kv(from_host.kv(), {&sequence, 1}, columns_of(here, 0, width), columns_of(here, width, width));
      write_kv(from_there.kv(), {&sequence, 1}, columns_of(there, 0, width), columns_of(there, width, width));
      const std::vector<std::byte> expected = cpu.brought();
      EXPECT_EQ(from_host.brought(), expected);
      EXPECT_EQ(from_there.brought(), expected);
    }
  }
}

}  // namespace
}  // namespace scd::kernels::testing
