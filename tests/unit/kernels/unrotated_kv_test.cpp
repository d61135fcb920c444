// Pages to rows without RoPE and back: the CPU against the ops it is made of, CUDA against the CPU.
#include "kernels/unrotated_kv.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "tests/unit/kernels/on_cuda.h"

namespace scd::kernels::testing {
namespace {

constexpr int64_t kPages = 9;

struct Shape {
  int64_t kv_heads, head_dim, page_tokens;
  int layers;
};
// The last: more layers than a launch takes.
const Shape kShapes[] = {{2, 64, 16, 2}, {8, 128, 16, 1}, {3, 10, 5, 3}, {1, 2, 1, 2}, {1, 256, 8, 2}, {1, 16, 4, 35}};

// Layers' caches, filled with what a test never writes.
class Caches {
 public:
  Caches(const Shape& shape, DType dtype, Device device) : shape_(shape), dtype_(dtype), device_(device) {
    fill_normal(all(), 1, 1.0f);
  }
  std::vector<PagedKv> layers() {
    const Matrix memory = all();
    const auto part = static_cast<size_t>(memory.rows / (2 * shape_.layers) * memory.columns) * size_of(dtype_);
    std::vector<PagedKv> made;
    auto* next = static_cast<std::byte*>(memory.data);
    for (int layer = 0; layer < shape_.layers; ++layer, next += 2 * part) {
      made.push_back({.keys = next,
                      .values = next + part,
                      .kv_heads = shape_.kv_heads,
                      .page_tokens = shape_.page_tokens,
                      .head_dim = shape_.head_dim,
                      .dtype = dtype_,
                      .device = device_,
                      .pages = kPages});
    }
    return made;
  }
  OwnedMatrix brought() {
    const Matrix there = all();
    OwnedMatrix here(there.rows, there.columns, dtype_);
    copy(there, here.view());
    return here;
  }

 private:
  Matrix all() {
    return memory_.matrix(int64_t{2} * shape_.layers * kPages * shape_.page_tokens, shape_.kv_heads * shape_.head_dim,
                          dtype_, device_);
  }
  const Shape shape_;
  const DType dtype_;
  const Device device_;
  GrowBuffer memory_;
};

// A sequence within kPages pages.
struct Tokens {
  explicit Tokens(const Shape& shape) : first(shape.page_tokens / 2), count(7 * shape.page_tokens - 1) {
    std::iota(pages.begin(), pages.end(), 0);
    std::swap(pages[0], pages[5]);
    std::swap(pages[2], pages[8]);
  }
  SequenceRows rows() const { return {pages, 0, count, first}; }
  int64_t first, count;
  std::vector<int32_t> pages = std::vector<int32_t>(kPages);
};

TEST(UnrotatedKv, IsRopeBesideReadingAndWriting) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tokens tokens(shape);
      const RopeTable table = rope_table(shape.head_dim);
      const int64_t width = shape.kv_heads * shape.head_dim;
      std::vector<int32_t> positions(static_cast<size_t>(tokens.count));
      std::iota(positions.begin(), positions.end(), static_cast<int32_t>(tokens.first));
      Caches own(shape, dtype, Device::kCpu), expected(shape, dtype, Device::kCpu);
      OwnedMatrix keys = random_matrix(tokens.count, width * shape.layers, DType::kF32, 1, 3);
      OwnedMatrix values = random_matrix(tokens.count, width * shape.layers, DType::kF32, 2, 1), turned = keys;
      rope(turned.view(), shape.head_dim, positions, table, RopeDirection::kRotate);
      const SequenceRows rows = tokens.rows();
      for (int layer = 0; layer < shape.layers; ++layer) {
        write_kv(expected.layers()[static_cast<size_t>(layer)], {&rows, 1},
                 columns_of(turned.view(), layer * width, width), columns_of(values.view(), layer * width, width));
      }
      write_unrotated_kv(own.layers(), rows, table, keys.view(), values.view());
      expect_near(own.brought(), expected.brought(), 0.0);
      OwnedMatrix keys_back(tokens.count, width * shape.layers, DType::kF32, 2);
      OwnedMatrix values_back(tokens.count, width * shape.layers, DType::kF32, 5);
      read_unrotated_kv(own.layers(), rows, table, keys_back.view(), values_back.view());
      expect_near(keys_back, keys, dtype == DType::kF32 ? 1e-6 : 1.2e-2);
      expect_near(values_back, values, dtype == DType::kF32 ? 0.0 : 4e-3);
    }
  }
}

TEST(UnrotatedKv, RefusesWhatDoesNotFit) {
  const Shape shape{2, 8, 4, 2};
  Caches caches(shape, DType::kF32, Device::kCpu);
  const Tokens tokens(shape);
  OwnedMatrix keys = random_matrix(tokens.count, 32, DType::kF32, 1), values = keys;
  const auto write = [&](std::span<const PagedKv> layers, const SequenceRows& rows, const RopeTable& table, Matrix k,
                         Matrix v) { write_unrotated_kv(layers, rows, table, k, v); };
  const std::vector<PagedKv> layers = caches.layers();
  const RopeTable table = rope_table(8);
  EXPECT_NO_THROW(write(layers, tokens.rows(), table, keys.view(), values.view()));
  EXPECT_THROW(write({}, tokens.rows(), table, keys.view(), values.view()), std::invalid_argument);
  EXPECT_THROW(write(std::span(layers).first(1), tokens.rows(), table, keys.view(), values.view()),
               std::invalid_argument);
  EXPECT_THROW(write(layers, tokens.rows(), rope_table(10), keys.view(), values.view()), std::invalid_argument);
  std::vector<PagedKv> unlike = layers;
  unlike[1].page_tokens = 2;
  EXPECT_THROW(write(unlike, tokens.rows(), table, keys.view(), values.view()), std::invalid_argument);
  SequenceRows longer = tokens.rows();
  longer.rows += 1;
  EXPECT_THROW(write(layers, longer, table, keys.view(), values.view()), std::invalid_argument);
  SequenceRows outside = tokens.rows();
  const std::vector<int32_t> wrong(kPages, kPages);
  outside.page_ids = wrong;
  EXPECT_THROW(read_unrotated_kv(layers, outside, table, keys.view(), values.view()), std::invalid_argument);
}

TEST_F(Cuda, PagesWithoutRopeMatchTheCpu) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t padding : {0, 4, 3}) {
        const Tokens tokens(shape);
        const RopeTable table = rope_table(shape.head_dim);
        const int64_t columns = shape.kv_heads * shape.head_dim * shape.layers;
        Caches here(shape, dtype, Device::kCpu), there(shape, dtype, Device::kGpu);
        OwnedMatrix keys = random_matrix(tokens.count, columns, DType::kF32, 1, padding);
        OwnedMatrix values = random_matrix(tokens.count, columns, DType::kF32, 2, padding);
        const OnCuda keys_there(keys), values_there(values);
        write_unrotated_kv(here.layers(), tokens.rows(), table, keys.view(), values.view());
        write_unrotated_kv(there.layers(), tokens.rows(), table, keys_there.view(), values_there.view());
        expect_near(there.brought(), here.brought(), tolerance(dtype));
        // Of the same pages.
        OwnedMatrix pages = here.brought();
        Caches again(shape, dtype, Device::kGpu);
        const Matrix to{
            again.layers().front().keys, pages.rows(), pages.columns(), pages.columns(), dtype, Device::kGpu};
        copy(pages.view(), to);
        OwnedMatrix keys_back(tokens.count, columns, DType::kF32, padding), keys_back_cuda = keys_back;
        OwnedMatrix values_back = keys_back, values_back_cuda = keys_back;
        const OnCuda keys_back_there(keys_back_cuda), values_back_there(values_back_cuda);
        read_unrotated_kv(here.layers(), tokens.rows(), table, keys_back.view(), values_back.view());
        read_unrotated_kv(again.layers(), tokens.rows(), table, keys_back_there.view(), values_back_there.view());
        keys_back_there.bring_back();
        values_back_there.bring_back();
        expect_near(keys_back_cuda, keys_back, 2e-6);
        expect_near(values_back_cuda, values_back, 0.0);
      }
    }
  }
}

}  // namespace
}  // namespace scd::kernels::testing
