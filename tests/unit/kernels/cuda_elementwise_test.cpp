// Ops over rows and columns on CUDA against the same ops on the CPU, over awkward sizes, strides and every dtype that
// an op takes. A further op is a line of kOps.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"
#include "tests/unit/kernels/on_cuda.h"

namespace scd::kernels::testing {
namespace {

constexpr DType kF32[] = {DType::kF32};
constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};

// All on one device, of different strides; random numbers in [-1, 1].
struct Operands {
  Matrix x;    // [rows, Op::x_groups * columns]
  Matrix by;   // [rows, columns / 2, rounded up] F32; of several rows one is zeros
  Matrix out;  // [rows, columns]
  std::span<const float> of_columns = {};
  std::span<const float> of_rows = {};
  Indices ids = {};  // [rows], of rows of x
};

double exact(DType) { return 0.0; }
double of_normal_numbers(DType dtype) { return dtype == DType::kBF16 ? 8e-3 : 1e-5; }

struct Op {
  const char* name;
  void (*run)(const Operands&);
  std::span<const DType> x = kF32;
  std::span<const DType> out = kF32;
  double (*allowed)(DType) = exact;  // the tolerance table of kernels/README.md
  int64_t x_groups = 1;
};
void PrintTo(const Op& op, std::ostream* out) { *out << op.name; }

void swiglu(const Operands& o) {
  if (o.x.device == Device::kGpu) return silu_mul(o.x, o.out);
  OwnedMatrix wide(o.x.rows, o.x.columns, DType::kF32);  // the CPU takes nothing else
  convert(o.x, wide.view());
  silu_mul(wide.view(), o.out);
}

const Op kOps[] = {
    {.name = "convert", .run = [](const Operands& o) { convert(o.x, o.out); }, .x = kDTypes, .out = kDTypes},
    {.name = "embedding", .run = [](const Operands& o) { embedding(o.x, o.ids, o.out); }, .x = kDTypes},
    {.name = "add_bias", .run = [](const Operands& o) { add_bias(o.out, o.of_columns); }, .out = kDTypes},
    {.name = "fill_rows", .run = [](const Operands& o) { fill_rows(o.out, o.of_rows); }},
    {.name = "fill_normal",
     .run = [](const Operands& o) { fill_normal(o.out, 11, 2.0f); },
     .out = kDTypes,
     .allowed = of_normal_numbers},
    {.name = "silu_mul", .run = swiglu, .x = kDTypes, .out = kDTypes, .allowed = tolerance, .x_groups = 2},
    {.name = "rms_norm",
     .run = [](const Operands& o) { rms_norm(o.x, o.of_columns, 1e-5f, o.out); },
     .out = kDTypes,
     .allowed = tolerance},
    {.name = "rms_norm_heads",
     .run = [](const Operands& o) { rms_norm_heads(o.x, o.out.columns, o.of_columns, 1e-6f); },
     .allowed = tolerance,
     .x_groups = 3},
    {.name = "divide_by_rms",
     .run = [](const Operands& o) { divide_by_rms(o.x, o.by, o.out); },
     .out = kDTypes,
     .allowed = tolerance},
    {.name = "divide_by_rms_in_place",
     .run = [](const Operands& o) { divide_by_rms(o.out, o.by, o.out); },
     .allowed = tolerance},
    {.name = "multiply_by_rms",
     .run = [](const Operands& o) { multiply_by_rms(o.x, o.by, o.out); },
     .out = kDTypes,
     .allowed = tolerance},
    {.name = "multiply_by_rms_in_place",
     .run = [](const Operands& o) { multiply_by_rms(o.out, o.by, o.out); },
     .allowed = tolerance},
};

struct Case {
  DType x, out;
  int64_t rows, columns, padding;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  const auto name = [](DType dtype) { return dtype == DType::kF32 ? "F32" : "BF16"; };
  return out << name(c.x) << " to " << name(c.out) << ", [" << c.rows << ", " << c.columns << "], padding "
             << c.padding;
}

void check(const Op& op, const Case& c) {
  OwnedMatrix x = random_matrix(c.rows, op.x_groups * c.columns, c.x, 1, c.padding);
  OwnedMatrix by = random_matrix(c.rows, (c.columns + 1) / 2, DType::kF32, 2, c.padding + 1);
  OwnedMatrix out = random_matrix(c.rows, c.columns, c.out, 3, 2 * c.padding);
  for (int64_t i = 0; c.rows > 1 && i < by.columns(); ++i) by.set(c.rows / 2, i, 0.0f);
  const std::vector<float> of_columns = random_vector(c.columns, 4), of_rows = random_vector(c.rows, 5);
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < c.rows; ++r) ids.push_back(static_cast<int32_t>((7 * r + 2) % c.rows));

  OwnedMatrix x_cuda = x, by_cuda = by, out_cuda = out;
  const OnCuda x_there(x_cuda), by_there(by_cuda), out_there(out_cuda);
  const DeviceVector of_columns_there(of_columns, Device::kGpu), of_rows_there(of_rows, Device::kGpu);
  op.run({x.view(), by.view(), out.view(), of_columns, of_rows, ids});
  op.run({x_there.view(), by_there.view(), out_there.view(), of_columns_there, of_rows_there, ids});
  for (const OnCuda* there : {&x_there, &by_there, &out_there}) there->bring_back();
  expect_near(x_cuda, x, op.allowed(c.x));
  expect_near(by_cuda, by, 0.0);
  expect_near(out_cuda, out, op.allowed(c.out));
}

class Elementwise : public Cuda, public ::testing::WithParamInterface<Op> {};

TEST_P(Elementwise, MatchesTheCpuOnAwkwardSizes) {
  const Op& op = GetParam();
  for (const DType x : op.x) {
    for (const DType out : op.out) {
      for (const int64_t rows : {1, 3, 70}) {
        for (const int64_t columns : {1, 7, 8, 33, 580, 4096}) {
          for (const int64_t padding : {0, 3, 8}) {
            const Case c{x, out, rows, columns, padding};
            ASSERT_NO_FATAL_FAILURE(check(op, c)) << op.name << ", " << c;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, Elementwise, ::testing::ValuesIn(kOps),
                         [](const auto& made) { return std::string(made.param.name); });

// NaN, infinities and the sign of zero count.
bool same_number(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? std::isnan(a) && std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

void expect_converted_alike(std::span<const std::byte> numbers, DType dtype, int64_t rows, int64_t columns,
                            int64_t stride) {
  const DeviceBuffer there = buffer_of(numbers, Device::kGpu);
  for (const DType to : kDTypes) {
    OwnedMatrix out = random_matrix(rows, columns, to, 1, 3), out_cuda = out;
    const OnCuda out_there(out_cuda);
    convert(ConstMatrix{numbers.data(), rows, columns, stride, dtype}, out.view());
    convert(ConstMatrix{there.data(), rows, columns, stride, dtype, Device::kGpu}, out_there.view());
    out_there.bring_back();
    ASSERT_TRUE(out_cuda.padding_is_untouched());
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        ASSERT_PRED2(same_number, out_cuda.at(r, c), out.at(r, c)) << "row " << r << " column " << c;
      }
    }
  }
}

TEST_F(Cuda, EveryNumberOf16BitsIsConvertedAsOnTheCpu) {
  std::vector<uint16_t> numbers(65536);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<uint16_t>(i);
  struct View {
    int64_t rows, columns, stride;
  };
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const View& v : {View{65536, 1, 1}, {9362, 7, 7}, {1820, 33, 36}, {256, 256, 256}, {1, 65536, 65536}}) {
      expect_converted_alike(std::as_bytes(std::span(numbers)), dtype, v.rows, v.columns, v.stride);
    }
  }
}

// Every BF16 number, and what lies halfway to the next and beside that.
TEST_F(Cuda, EveryTieIsRoundedAsOnTheCpu) {
  std::vector<float> numbers;
  for (uint32_t upper = 0; upper < 65536; ++upper) {
    for (const uint32_t lower : {0u, 0x7fffu, 0x8000u, 0x8001u}) {
      numbers.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  expect_converted_alike(std::as_bytes(std::span(numbers)), DType::kF32, 512, 512, 512);
}

struct GateUp {
  float gate, up;
};

// gate_up [1, 2 n] in one dtype, on the CPU and on CUDA, to `out`.
struct SwiGluPair {
  SwiGluPair(std::span<const GateUp> numbers, DType in, DType out_dtype, int64_t padding)
      : gate_up(1, 2 * std::ssize(numbers), in, padding), out(1, std::ssize(numbers), out_dtype, padding) {
    const auto n = std::ssize(numbers);
    for (int64_t i = 0; i < n; ++i) {
      gate_up.set(0, i, numbers[static_cast<size_t>(i)].gate);
      gate_up.set(0, n + i, numbers[static_cast<size_t>(i)].up);
    }
    out_cuda = out;
    const OnCuda in_there(gate_up), out_there(out_cuda);
    swiglu({.x = gate_up.view(), .by = {}, .out = out.view()});
    swiglu({.x = in_there.view(), .by = {}, .out = out_there.view()});
    out_there.bring_back();
  }
  OwnedMatrix gate_up, out, out_cuda = out;
};

// Gates from -1e8: the CPU's e^-gate ends at the largest number, which still leaves next to nothing of them.
TEST_F(Cuda, SwiGluHoldsAtTheEndsOfTheRange) {
  std::vector<GateUp> numbers;
  for (const float gate : {-1e8f, -1000.0f, -89.0f, -88.5f, -80.0f, -20.0f, -1.0f, -0.0f, 0.0f, 1e-30f, 1.0f, 20.0f,
                           88.5f, 89.0f, 1000.0f, 1e30f}) {
    for (const float up : {1.0f, -1.0f, 1e-20f, 1e8f}) numbers.push_back({gate, up});
  }
  const auto n = std::ssize(numbers);
  for (const DType in : kDTypes) {
    for (const DType out : kDTypes) {
      for (const int64_t padding : {0, 3}) {  // eight numbers a thread, and one
        SwiGluPair pair(numbers, in, out, padding);
        for (int64_t i = 0; i < n; ++i) {
          const double gate = pair.gate_up.at(0, i), up = pair.gate_up.at(0, n + i);
          const double expected = gate / (1.0 + std::exp(-gate)) * up;
          const double relative = 2e-6 + 2e-7 * std::max(0.0, -gate) + (out == DType::kBF16 ? 4e-3 : 0.0);
          const double allowed = relative * std::abs(expected) + 1e-30 * std::max(1.0, std::abs(up));
          ASSERT_NEAR(pair.out.at(0, i), expected, allowed) << gate << " " << up;
          ASSERT_NEAR(pair.out_cuda.at(0, i), expected, allowed) << gate << " " << up;
        }
      }
    }
  }
}

// No device hides an overflow or a NaN of what came before.
TEST_F(Cuda, SwiGluOfWhatIsNotFiniteIsNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  const std::vector<GateUp> numbers{{kInfinity, 1.0f},  {kInfinity, -2.0f}, {1.0f, kInfinity},      {1.0f, -kInfinity},
                                    {-1.0f, kInfinity}, {0.0f, kInfinity},  {kInfinity, kInfinity}, {kInfinity, 0.0f},
                                    {kNaN, 1.0f},       {1.0f, kNaN},       {kNaN, kNaN},           {kNaN, 0.0f},
                                    {-1000.0f, kNaN},   {1000.0f, kNaN},    {kNaN, kInfinity},      {kInfinity, kNaN}};
  const std::vector<GateUp> overflowed(8, {-kInfinity, 1.0f});  // -infinity on the CPU, NaN on CUDA
  for (const DType in : kDTypes) {
    for (const DType out : kDTypes) {
      for (const int64_t padding : {0, 3}) {
        const SwiGluPair pair(numbers, in, out, padding), other(overflowed, in, out, padding);
        for (int64_t i = 0; i < std::ssize(numbers); ++i) {
          const GateUp& of = numbers[static_cast<size_t>(i)];
          ASSERT_FALSE(std::isfinite(pair.out.at(0, i))) << of.gate << " " << of.up;
          ASSERT_PRED2(same_number, pair.out_cuda.at(0, i), pair.out.at(0, i)) << of.gate << " " << of.up;
        }
        for (int64_t i = 0; i < std::ssize(overflowed); ++i) {
          ASSERT_FALSE(std::isfinite(other.out.at(0, i)) || std::isfinite(other.out_cuda.at(0, i)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace scd::kernels::testing
