// The ops of calibration: moments, sums, and what trains a small network. On the CPU against references in double, on
// CUDA against the CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/column_sums.h"
#include "kernels/dense_f64.h"
#include "kernels/second_moment.h"
#include "kernels/training.h"
#include "tests/unit/kernels/on_cuda.h"
#include "tests/unit/kernels/random_matrix.h"

namespace scd::kernels::testing {
namespace {

struct Shape {
  int64_t rows;
  int64_t columns;
};
constexpr Shape kShapes[] = {{1, 1}, {3, 17}, {70, 33}, {300, 64}, {2500, 5}};

OwnedMatrix f32(Shape shape, uint32_t seed, int64_t padding = 3) {
  return random_matrix(shape.rows, shape.columns, DType::kF32, seed, padding);
}

TEST(SecondMomentOp, AddsToWhatTheTriangleHolds) {
  for (const Shape shape : kShapes) {
    OwnedMatrix rows = f32(shape, 1);
    const int64_t n = shape.columns;
    std::vector<double> triangle(static_cast<size_t>(triangle_size(n)), 2.0);
    ASSERT_EQ(std::ssize(triangle), n * (n + 1) / 2);
    add_second_moment(rows.view(), triangle.data());
    for (int64_t column = 0; column < n; ++column) {
      for (int64_t row = column; row < n; ++row) {
        double expected = 2.0;
        for (int64_t r = 0; r < shape.rows; ++r) expected += rows.at(r, row) * rows.at(r, column);
        ASSERT_NEAR(triangle[static_cast<size_t>(triangle_column(column, n) + row - column)], expected,
                    1e-5 * static_cast<double>(shape.rows + 1));
      }
    }
  }
}

TEST(ColumnSums, AreThoseInDouble) {
  for (const Shape shape : kShapes) {
    OwnedMatrix m = f32(shape, 2);
    std::vector<double> sums(static_cast<size_t>(shape.columns), 9.0), squares(sums.size(), 9.0);
    column_sums(m.view(), sums, squares);
    for (int64_t c = 0; c < shape.columns; ++c) {
      double sum = 0, square = 0;
      for (int64_t r = 0; r < shape.rows; ++r) {
        sum += m.at(r, c);
        square += m.at(r, c) * m.at(r, c);
      }
      ASSERT_NEAR(sums[static_cast<size_t>(c)], sum, 1e-9);
      ASSERT_NEAR(squares[static_cast<size_t>(c)], square, 1e-9);
    }
  }
}

TEST(TrainingOps, TheSlopeIsTheDerivativeOfTheActivation) {
  OwnedMatrix before = f32({5, 40}, 3), after = f32({5, 40}, 4), slope = f32({5, 40}, 5);
  silu_with_slope(before.view(), after.view(), slope.view());
  const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
  for (int64_t r = 0; r < before.rows(); ++r) {
    for (int64_t c = 0; c < before.columns(); ++c) {
      const double x = before.at(r, c), step = 1e-5;
      ASSERT_NEAR(after.at(r, c), silu(x), 1e-6);
      ASSERT_NEAR(slope.at(r, c), (silu(x + step) - silu(x - step)) / (2 * step), 1e-6);
    }
  }
  EXPECT_TRUE(after.padding_is_untouched() && slope.padding_is_untouched());
}

// The paper's algorithm 2 in double.
TEST(TrainingOps, AdamWFollowsThePaper) {
  OwnedMatrix parameters = f32({2, 9}, 6), first(2, 9, DType::kF32), second(2, 9, DType::kF32);
  OwnedMatrix zeros = f32({2, 9}, 1, 0);
  scaled_difference(zeros.view(), zeros.view(), 1.0f, first.view());
  scaled_difference(zeros.view(), zeros.view(), 1.0f, second.view());
  constexpr double kRate = 0.01, kDecay = 0.1;
  std::vector<double> x, m(18), v(18);
  for (int64_t i = 0; i < 18; ++i) x.push_back(parameters.at(i / 9, i % 9));
  for (int64_t step = 1; step <= 5; ++step) {
    OwnedMatrix gradient = f32({2, 9}, static_cast<uint32_t>(10 + step), 1);
    adamw({parameters.view(), gradient.view(), first.view(), second.view()},
          {static_cast<float>(kRate), static_cast<float>(kDecay), step});
    for (size_t i = 0; i < 18; ++i) {
      const double g = gradient.at(static_cast<int64_t>(i / 9), static_cast<int64_t>(i % 9));
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.9, step)), v_hat = v[i] / (1 - std::pow(0.999, step));
      x[i] -= kRate * (m_hat / (std::sqrt(v_hat) + 1e-8) + kDecay * x[i]);
    }
  }
  for (int64_t i = 0; i < 18; ++i) EXPECT_NEAR(parameters.at(i / 9, i % 9), x[static_cast<size_t>(i)], 1e-5);
}

TEST(TrainingOps, RefuseWhatDoesNotFit) {
  OwnedMatrix a = f32({2, 3}, 1), b = f32({3, 2}, 2), row = f32({1, 3}, 3);
  EXPECT_THROW(silu_with_slope(a.view(), b.view(), a.view()), std::invalid_argument);
  EXPECT_THROW(multiply(a.view(), b.view()), std::invalid_argument);
  EXPECT_THROW(scaled_difference(a.view(), a.view(), 1.0f, b.view()), std::invalid_argument);
  EXPECT_THROW(sum_rows(b.view(), row.view()), std::invalid_argument);
  EXPECT_THROW(adamw({a.view(), b.view(), a.view(), a.view()}, {}), std::invalid_argument);
  EXPECT_THROW(adamw({a.view(), a.view(), a.view(), a.view()}, {.step = 0}), std::invalid_argument);
  std::vector<double> few(2);
  EXPECT_THROW(column_sums(a.view(), few, few), std::invalid_argument);
}

TEST_F(Cuda, SecondMomentsMatchTheCpu) {
  for (const Shape shape : {Shape{1, 1}, {3, 17}, {70, 33}, {2500, 5}, {9000, 40}, {300, 130}}) {
    OwnedMatrix rows = f32(shape, 1, shape.columns % 2);
    const OnCuda there(rows);
    const auto values = static_cast<size_t>(triangle_size(shape.columns));
    std::vector<double> sum(values, 2.0);
    const DeviceBuffer sum_there = buffer_of(std::as_bytes(std::span(sum)), Device::kGpu);
    add_second_moment(there.view(), reinterpret_cast<double*>(sum_there.data()));
    add_second_moment(rows.view(), sum.data());
    std::vector<double> back(values);
    const auto words = static_cast<int64_t>(values * 2);
    copy(ConstMatrix{sum_there.data(), 1, words, words, DType::kF32, Device::kGpu},
         Matrix{back.data(), 1, words, words});
    for (size_t i = 0; i < values; ++i) {
      ASSERT_NEAR(back[i], sum[i], 2e-6 * static_cast<double>(shape.rows + 1)) << shape.rows << " x " << shape.columns;
    }
  }
}

TEST_F(Cuda, ColumnSumsMatchTheCpu) {
  for (const Shape shape : kShapes) {
    OwnedMatrix m = f32(shape, 2);
    const OnCuda there(m);
    std::vector<double> sums(static_cast<size_t>(shape.columns)), squares(sums.size());
    std::vector<double> sums_there(sums.size()), squares_there(sums.size());
    column_sums(m.view(), sums, squares);
    column_sums(there.view(), sums_there, squares_there);
    for (size_t c = 0; c < sums.size(); ++c) {
      ASSERT_NEAR(sums_there[c], sums[c], 1e-9);
      ASSERT_NEAR(squares_there[c], squares[c], 1e-9);
    }
  }
}

TEST_F(Cuda, TrainingOpsMatchTheCpu) {
  for (const Shape shape : kShapes) {
    OwnedMatrix a = f32(shape, 1), b = f32(shape, 2, 0), c = f32(shape, 3, 1), row = f32({1, shape.columns}, 4);
    OwnedMatrix a2 = a, b2 = b, c2 = c, row2 = row;
    const OnCuda a_there(a2), b_there(b2), c_there(c2), row_there(row2);
    const auto both = [&](const auto& op) {
      op(a.view(), b.view(), c.view(), row.view());
      op(a_there.view(), b_there.view(), c_there.view(), row_there.view());
    };
    both([](Matrix x, Matrix y, Matrix z, Matrix) { silu_with_slope(x, y, z); });
    both([](Matrix x, Matrix y, Matrix, Matrix) { multiply(x, y); });
    both([](Matrix x, Matrix y, Matrix z, Matrix) { scaled_difference(x, y, 0.7f, z); });
    both([](Matrix, Matrix, Matrix z, Matrix sum) { sum_rows(z, sum); });
    both([](Matrix x, Matrix y, Matrix z, Matrix) {
      scaled_difference(z, z, 1.0f, z), scaled_difference(y, y, 1.0f, y), adamw({x, x, y, z}, {0.01f, 0.1f, 1});
    });
    for (const OnCuda* there : {&a_there, &b_there, &c_there, &row_there}) there->bring_back();
    expect_near(a2, a, 2e-6);
    expect_near(b2, b, 2e-6);
    expect_near(c2, c, 2e-6);
    expect_near(row2, row, 2e-6 * static_cast<double>(shape.rows));
  }
}

// Column-major.
struct Doubles {
  Doubles(int64_t rows, int64_t columns, uint32_t seed)
      : view{nullptr, rows, columns, rows + 2}, values(static_cast<size_t>(view.stride * columns)) {
    const std::vector<float> random = random_vector(std::ssize(values), seed);
    std::copy(random.begin(), random.end(), values.begin());
    view.data = values.data();
  }
  Doubles(const Doubles& other) : view(other.view), values(other.values) { view.data = values.data(); }
  double& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r + c * view.stride)]; }
  ColumnsF64 view;
  std::vector<double> values;
};

TEST_F(Cuda, ProductsOfDoublesAreThoseOfTheDefinition) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      constexpr int64_t kM = 7, kN = 13, kK = 21;
      Doubles a(transpose_a ? kK : kM, transpose_a ? kM : kK, 1), b(transpose_b ? kN : kK, transpose_b ? kK : kN, 2);
      Doubles c(kM, kN, 3);
      multiply_f64({a.view, b.view, c.view, transpose_a, transpose_b});
      for (int64_t i = 0; i < kM; ++i) {
        for (int64_t k = 0; k < kN; ++k) {
          double sum = 0;
          for (int64_t x = 0; x < kK; ++x) {
            sum += (transpose_a ? a.at(x, i) : a.at(i, x)) * (transpose_b ? b.at(k, x) : b.at(x, k));
          }
          ASSERT_NEAR(c.at(i, k), sum, 1e-12);
        }
      }
    }
  }
}

TEST_F(Cuda, EigenvectorsAreThoseOfTheMatrix) {
  constexpr int64_t kSize = 90;
  Doubles symmetric(kSize, kSize, 4);
  for (int64_t i = 0; i < kSize; ++i) {
    for (int64_t k = 0; k < i; ++k) symmetric.at(k, i) = symmetric.at(i, k);
  }
  Doubles vectors = symmetric;
  std::vector<double> values(kSize);
  ASSERT_TRUE(eigen_f64(vectors.view, values.data()));
  EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
  for (int64_t v = 0; v < kSize; ++v) {
    for (int64_t i = 0; i < kSize; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < kSize; ++k) sum += symmetric.at(i, k) * vectors.at(k, v);
      ASSERT_NEAR(sum, values[static_cast<size_t>(v)] * vectors.at(i, v), 1e-11);
    }
  }
}

TEST_F(Cuda, CholeskyFactorsSolve) {
  constexpr int64_t kSize = 60, kRight = 5;
  Doubles root(kSize, kSize, 5), symmetric(kSize, kSize, 6);
  multiply_f64({root.view, root.view, symmetric.view, false, true});
  for (int64_t i = 0; i < kSize; ++i) symmetric.at(i, i) += 1.0;
  const CholeskyF64 factor(symmetric.view);
  ASSERT_TRUE(factor.positive_definite());
  Doubles solution(kSize, kRight, 7);
  const Doubles right = solution;
  Doubles by_parts = solution;
  factor.solve(solution.view, {});
  factor.solve(by_parts.view, {.upper = false});
  factor.solve(by_parts.view, {.lower = false});
  Doubles product(kSize, kRight, 8);
  multiply_f64({symmetric.view, solution.view, product.view});
  for (int64_t r = 0; r < kSize; ++r) {
    for (int64_t c = 0; c < kRight; ++c) {
      ASSERT_NEAR(product.at(r, c), Doubles(right).at(r, c), 1e-10);
      ASSERT_NEAR(by_parts.at(r, c), solution.at(r, c), 1e-12);
    }
  }
  symmetric.at(10, 10) = -1.0;
  EXPECT_FALSE(CholeskyF64(symmetric.view).positive_definite());
}

TEST(DenseF64, RefusesWhatDoesNotFit) {
  Doubles a(3, 4, 1), b(3, 4, 2), c(3, 4, 3);
  EXPECT_THROW(multiply_f64({a.view, b.view, c.view}), std::invalid_argument);
  EXPECT_THROW(eigen_f64(a.view, nullptr), std::invalid_argument);
  EXPECT_THROW(CholeskyF64{a.view}, std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels::testing
