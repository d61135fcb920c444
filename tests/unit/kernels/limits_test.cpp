#include "kernels/limits.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

namespace scd::kernels {
namespace {

TEST(Limits, MeasureSomethingPlausible) {
  const std::vector<GemmShape> shapes{{.m = 64, .n = 96, .k = 128}};
  const double rate = measure_cpu_gemm_rate(shapes, 1);
  EXPECT_GT(rate, 1e6);
  EXPECT_LT(rate, 1e15);
  const double bandwidth = measure_read_bandwidth(size_t{16} << 20, 1);
  EXPECT_GT(bandwidth, 1e6);
  EXPECT_LT(bandwidth, 1e13);
  EXPECT_GE(kernel_threads(), 1);
}

TEST(Limits, RefuseNothingToMeasure) {
  EXPECT_THROW(measure_cpu_gemm_rate({}, 1), std::invalid_argument);
  EXPECT_THROW(measure_read_bandwidth(0, 1), std::invalid_argument);
}

}  // namespace
}  // namespace scd::kernels
