// What this machine can do, measured the moment it is asked: the denominators of `scd bench engine`. Compare shares
// only within one run, on the threads that the kernels use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace scd::kernels {

// x [m, k] times W^T with W [n, k].
struct GemmShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

// FLOP/s of the library of matrix products that the build has (SCD_SGEMM), over all shapes one after the other, made
// and warmed before; the best of `repetitions`. oneDNN's takes BF16 where the CPU has it, the others F32.
double measure_cpu_gemm_rate(std::span<const GemmShape> shapes, int threads, int repetitions = 3);
std::string cpu_gemm_name();  // what that measures: "oneDNN, BF16"

// Bytes a second of reading a buffer of `bytes` front to back, each thread its part; the best of `repetitions`.
double measure_read_bandwidth(size_t bytes, int threads, int repetitions = 3);

// Of the GPU: FLOP/s of cuBLASLt, BF16 in and out, over all shapes one after the other on normally distributed numbers;
// the best of `repetitions`.
double measure_gpu_gemm_rate(std::span<const GemmShape> shapes, int repetitions = 3);

// Of the GPU: bytes read and written a second by a copy of `bytes` within its memory; the best of `repetitions`.
double measure_gpu_copy_bandwidth(size_t bytes, int repetitions = 3);

// Of the GPU: bytes a second between page-locked memory and its own, a copy of `bytes` at a time; the best of
// `repetitions`.
enum class BusDirection { kToGpu, kFromGpu };
double measure_gpu_bus_bandwidth(BusDirection direction, size_t bytes, int repetitions = 3);

// OpenMP threads that kernels called from this thread use.
int kernel_threads();

}  // namespace scd::kernels
