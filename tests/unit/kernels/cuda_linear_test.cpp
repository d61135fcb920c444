// Products on CUDA, their biases with them.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <thread>
#include <vector>

#include "kernels/linear.h"
#include "tests/unit/kernels/on_cuda.h"

namespace scd::kernels::testing {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};

// Against sums in double of the numbers as they are multiplied; scale: the sum of the absolute products.
TEST_F(Cuda, LinearLayersMatchTheDoubleReference) {
  struct Case {
    int64_t rows, in, out;
  };
  for (const DType precision : kDTypes) {
    for (const DType y_dtype : kDTypes) {
      for (const Case& c : {Case{1, 64, 48},
                            {2, 576, 100},
                            {3, 8, 1},
                            {5, 4096, 40},
                            {8, 72, 33},
                            {9, 72, 40},
                            {40, 576, 200},
                            {1, 36, 10},
                            {17, 36, 12},
                            {2, 64, 17},
                            {8, 576, 50},
                            {12, 256, 31},
                            {16, 1024, 16},
                            {31, 96, 33},
                            {32, 4096, 8},
                            {65, 64, 33},
                            {257, 576, 130},
                            {129, 1024, 64}}) {
        if (precision == DType::kBF16 && c.in % 8 != 0 && c.rows > 1) continue;  // cuBLASLt wants 16-byte rows
        OwnedMatrix weight = random_matrix(c.out, c.in, DType::kF32, 1),
                    x = random_matrix(c.rows, c.in, DType::kF32, 2);
        const std::vector<float> bias = random_vector(c.out, 3);
        const PackedLinear linear(weight.view(), bias, precision, Device::kGpu);
        const OnCuda x_there(x);
        for (const bool accumulate : {false, true}) {
          if (accumulate && y_dtype != DType::kF32) continue;
          OwnedMatrix y = random_matrix(c.rows, c.out, y_dtype, 4);
          const OwnedMatrix before = y;
          const OnCuda y_there(y);
          linear.forward(x_there.view(), y_there.view(), accumulate);
          y_there.bring_back();
          for (int64_t r = 0; r < c.rows; ++r) {
            for (int64_t o = 0; o < c.out; ++o) {
              double sum = bias[static_cast<size_t>(o)] + (accumulate ? before.at(r, o) : 0.0);
              double scale = 1.0;
              for (int64_t i = 0; i < c.in; ++i) {
                const double product = rounded_to(precision, x.at(r, i)) * rounded_to(precision, weight.at(o, i));
                sum += product;
                scale += std::abs(product);
              }
              const double allowed = y_dtype == DType::kBF16 ? 5e-3 : 2e-6;
              ASSERT_NEAR(y.at(r, o), sum, allowed * scale) << c.rows << " rows, " << c.in << " to " << c.out;
            }
          }
        }
      }
    }
  }
}

TEST_F(Cuda, AWeightThatIsThereIsMultipliedWhereItIs) {
  constexpr int64_t kIn = 64, kOut = 48;
  OwnedMatrix weight = random_matrix(kOut, kIn, DType::kBF16, 1), x = random_matrix(3, kIn, DType::kF32, 2);
  const Placement arena = Placement::arena(Device::kGpu, 8192);
  const DeviceBuffer there(arena, kOut * kIn * sizeof(BFloat16));
  copy(weight.view(), {there.data(), kOut, kIn, kIn, DType::kBF16, Device::kGpu});
  const PackedLinear over = PackedLinear::over(there.shared(), kOut, kIn, DType::kBF16);
  const PackedLinear packed(weight.view(), {}, DType::kBF16, Device::kGpu);
  OwnedMatrix y = random_matrix(3, kOut, DType::kF32, 4), expected = y;
  const OnCuda x_there(x), y_there(y), expected_there(expected);
  over.forward(x_there.view(), y_there.view());
  packed.forward(x_there.view(), expected_there.view());
  y_there.bring_back();
  expected_there.bring_back();
  for (int64_t r = 0; r < 3; ++r) {
    for (int64_t o = 0; o < kOut; ++o) ASSERT_EQ(y.at(r, o), expected.at(r, o));
  }
  EXPECT_EQ(arena.left(), 2048u);
  EXPECT_THROW(PackedLinear::over(there.shared(), kOut, kIn, DType::kF32), std::invalid_argument);
}

// Threads share what cuBLASLt was told of a shape, but not whose bias it adds.
TEST_F(Cuda, BiasesOfLayersOfOneShapeStayApart) {
  constexpr int64_t kRows = 70, kIn = 64, kOut = 48;
  OwnedMatrix weight = random_matrix(kOut, kIn, DType::kF32, 1), x = random_matrix(kRows, kIn, DType::kF32, 2);
  const PackedLinear plain(weight.view(), {}, DType::kBF16, Device::kGpu);
  OwnedMatrix sums(kRows, kOut, DType::kF32);
  {
    const OnCuda x_there(x), y_there(sums);
    plain.forward(x_there.view(), y_there.view());
    y_there.bring_back();
  }
  const auto run = [&](float bias) {
    const PackedLinear linear(weight.view(), std::vector<float>(kOut, bias), DType::kBF16, Device::kGpu);
    OwnedMatrix own_x = x, y(kRows, kOut, DType::kF32);
    const OnCuda x_there(own_x), y_there(y);
    for (int turn = 0; turn < 100; ++turn) {
      linear.forward(x_there.view(), y_there.view());
      y_there.bring_back();
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t o = 0; o < kOut; ++o) ASSERT_NEAR(y.at(r, o), sums.at(r, o) + bias, 1e-4);
      }
    }
  };
  std::vector<std::jthread> threads;
  for (const float bias : {1.0f, -3.0f, 7.0f}) threads.emplace_back([&run, bias] { run(bias); });
}

struct GemmCase {
  DType dtype;
  int64_t m, n, k;
  bool transpose_a, transpose_b, bias;
  float beta;
  int64_t padding;
};

// Against sums in double; scale: the sum of the absolute products.
void check_gemm(const GemmCase& g) {
  // cuBLASLt wants rows of BF16 at multiples of 16 bytes, and takes any of F32.
  const auto operand = [&](int64_t rows, int64_t columns, uint32_t seed) {
    const int64_t to_eights = g.dtype == DType::kBF16 ? (8 - (columns + g.padding) % 8) % 8 : 0;
    return random_matrix(rows, columns, g.dtype, seed, g.padding + to_eights);
  };
  OwnedMatrix a = g.transpose_a ? operand(g.k, g.m, 1) : operand(g.m, g.k, 1);
  OwnedMatrix b = g.transpose_b ? operand(g.n, g.k, 2) : operand(g.k, g.n, 2);
  OwnedMatrix c = random_matrix(g.m, g.n, DType::kF32, 3, g.padding);
  for (int64_t r = 0; g.beta == 0.0f && r < g.m; ++r) {
    for (int64_t o = 0; o < g.n; ++o) c.set(r, o, std::nanf(""));  // which is not to be read
  }
  const OwnedMatrix before = c;
  const std::vector<float> bias = random_vector(g.n, 4);
  const DeviceVector bias_there(bias, Device::kGpu);
  const OnCuda a_there(a), b_there(b), c_there(c);
  gemm_f32({.a = a_there.view(),
            .b = b_there.view(),
            .c = c_there.view(),
            .transpose_a = g.transpose_a,
            .transpose_b = g.transpose_b,
            .beta = g.beta,
            .bias = g.bias ? std::span<const float>(bias_there) : std::span<const float>()});
  c_there.bring_back();
  ASSERT_TRUE(c.padding_is_untouched());
  for (int64_t r = 0; r < g.m; ++r) {
    for (int64_t o = 0; o < g.n; ++o) {
      double sum = g.bias ? bias[static_cast<size_t>(o)] : 0.0, scale = 1.0;
      if (g.beta != 0.0f) sum += double{g.beta} * before.at(r, o);
      for (int64_t i = 0; i < g.k; ++i) {
        const double product = (g.transpose_a ? a.at(i, r) : a.at(r, i)) * (g.transpose_b ? b.at(o, i) : b.at(i, o));
        sum += product;
        scale += std::abs(product);
      }
      ASSERT_NEAR(c.at(r, o), sum, (g.dtype == DType::kF32 ? 2e-3 : 2e-6) * scale)  // TF32
          << "row " << r << " column " << o;
    }
  }
}

TEST_F(Cuda, GemmMatchesTheDoubleReferenceOnAwkwardSizes) {
  for (const DType dtype : kDTypes) {
    for (const auto& [m, n, k] :
         {std::array<int64_t, 3>{1, 1, 1}, {1, 8, 16}, {37, 24, 40}, {130, 100, 64}, {21, 33, 8}, {7, 65, 33}}) {
      for (const int transposed : {0, 1, 2, 3}) {
        for (const float beta : {0.0f, 0.5f, 1.0f}) {
          for (const bool bias : {false, true}) {
            for (const int64_t padding : {0, 3, 8}) {
              const bool transpose_a = transposed % 2 == 1, transpose_b = transposed >= 2;
              ASSERT_NO_FATAL_FAILURE(check_gemm({dtype, m, n, k, transpose_a, transpose_b, bias, beta, padding}))
                  << size_of(dtype) << " bytes, " << m << " x " << n << " x " << k << ", transposed " << transpose_a
                  << transpose_b << ", bias " << bias << ", beta " << beta << ", padding " << padding;
            }
          }
        }
      }
    }
  }
}

// Steps of prompts have ever new numbers of rows.
TEST_F(Cuda, WhatIsKeptOfShapesIsBounded) {
  using Count = int64_t (*)();
  const auto descriptors = reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "scdEmulatedBlasLtDescriptors"));  // null: a GPU
  constexpr int64_t kRows = 100, kWidths = 90;  // more shapes than twice as many as are kept
  constexpr int64_t kMost = 4096 * 4 + 64;      // an operation and three layouts each; the recording
  OwnedMatrix a = random_matrix(kRows, kWidths, DType::kF32, 1), b = random_matrix(8, kWidths, DType::kF32, 2);
  const std::vector<float> bias = random_vector(8, 3);
  const DeviceVector bias_there(bias, Device::kGpu);
  const OnCuda a_there(a), b_there(b);
  const auto multiply = [&](int64_t rows, int64_t width, Matrix c) {
    const Matrix left = columns_of(rows_of(a_there.view(), 0, rows), 0, width);
    gemm_f32({.a = left,
              .b = columns_of(b_there.view(), 0, width),
              .c = rows_of(c, 0, rows),
              .transpose_b = true,
              .bias = bias_there});
  };
  OwnedMatrix first(kRows, 8, DType::kF32), again(kRows, 8, DType::kF32), recorded(kRows, 8, DType::kF32);
  const OnCuda first_there(first), again_there(again), recorded_there(recorded);
  multiply(kRows, kWidths, first_there.view());
  multiply(kRows, kWidths, recorded_there.view());
  RecordedWork recording;
  recording.record([&] { multiply(kRows, kWidths, recorded_there.view()); });
  for (int64_t rows = 1; rows <= kRows; ++rows) {
    for (int64_t width = 1; width <= kWidths; ++width) multiply(rows, width, again_there.view());
    synchronize(Device::kGpu);
    if (descriptors != nullptr) {
      ASSERT_LE(descriptors(), kMost);
    }
  }
  clear(recorded_there.view());
  recording.replay();
  multiply(kRows, kWidths, again_there.view());
  first_there.bring_back();
  again_there.bring_back();
  recorded_there.bring_back();
  expect_near(again, first, 0);
  expect_near(recorded, first, 0);
}

}  // namespace
}  // namespace scd::kernels::testing
