// What the emulation promises beyond running kernels: that it shows what a kernel must not do.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>

#include "kernels/tensor_core.cuh"

namespace scd::cuda_on_cpu {
namespace {

// On the device; read and written by copies.
template <class T, size_t kCount>
class Device {
 public:
  Device() { cudaMalloc(reinterpret_cast<void**>(&data_), sizeof(Values)); }
  ~Device() { cudaFree(data_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  T* data() const { return data_; }
  auto values() const {
    Values values;
    cudaMemcpyAsync(values.data(), data_, sizeof(Values), cudaMemcpyDeviceToHost, nullptr);
    return values;
  }

 private:
  using Values = std::array<T, kCount>;
  T* data_ = nullptr;
};

__global__ void number_kernel(int* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[blockIdx.x * blockDim.x * blockDim.y * blockDim.z + thread] = static_cast<int>(thread + 100 * blockIdx.x);
}

TEST(CudaOnCpu, EveryThreadOfEveryBlockRunsOnce) {
  const Device<int, 3 * 24> out;
  number_kernel<<<3, dim3(2, 3, 4)>>>(out.data());
  const auto values = out.values();
  for (int i = 0; i < 72; ++i) EXPECT_EQ(values[static_cast<size_t>(i)], i % 24 + i / 24 * 100);
}

__global__ void reverse_kernel(int* out) {
  __shared__ int numbers[70];
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = numbers[blockDim.x - 1 - threadIdx.x];
}

TEST(CudaOnCpu, BarriersPublishSharedMemory) {
  const Device<int, 70> out;
  reverse_kernel<<<1, 70>>>(out.data());
  for (size_t i = 0; i < 70; ++i) EXPECT_EQ(out.values()[i], 69 - static_cast<int>(i));
}

__global__ void neighbour_kernel(int* out) {
  __shared__ int numbers[64];
  numbers[threadIdx.x] = 1;
  out[blockIdx.x * 64 + threadIdx.x] = numbers[threadIdx.x ^ 1];
}

TEST(CudaOnCpu, AMissingBarrierShowsInOneOfTwoBlocks) {
  const Device<int, 128> out;
  neighbour_kernel<<<2, 64>>>(out.data());
  const auto values = out.values();
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(values[i] + values[64 + i], 0) << "one wrote, the other found -1";
}

__global__ void halves_kernel(unsigned* out) {
  if (threadIdx.x < 8) {
    out[threadIdx.x] = __ballot_sync(0xffu, threadIdx.x % 2 == 0);
  } else if (threadIdx.x < 20) {
    out[threadIdx.x] = __shfl_xor_sync(0xfff00u, threadIdx.x, 1);
  }
}

TEST(CudaOnCpu, LanesOfAMaskMeetWithoutTheOthers) {
  const Device<unsigned, 32> out;
  halves_kernel<<<1, 32>>>(out.data());
  EXPECT_EQ(out.values()[3], 0x55u);
  EXPECT_EQ(out.values()[11], 10u);
  EXPECT_EQ(out.values()[20], 0xffffffffu);  // what nobody wrote
}

__global__ void stuck_kernel() {
  if (threadIdx.x == 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

TEST(CudaOnCpu, ThreadsThatWaitForEachOtherAreNamed) {
  ::testing::internal::CaptureStderr();
  stuck_kernel<<<1, 32>>>();
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("stuck_kernel is stuck in block (0, 0, 0)"), said.npos) << said;
  EXPECT_NE(said.find("thread (0, 0, 0) waits at __syncthreads"), said.npos) << said;
  EXPECT_NE(said.find("thread (1, 0, 0) waits at __syncwarp"), said.npos) << said;
  const Device<int, 70> out;
  reverse_kernel<<<1, 70>>>(out.data());  // the next one runs
  EXPECT_EQ(out.values()[0], 69);
}

__global__ void unwritten_kernel(float* out) {
  __shared__ float nothing[4];
  extern __shared__ float neither[];
  out[0] = nothing[2];
  out[1] = neither[3];
  nothing[2] = neither[3] = 1.0f;
}

TEST(CudaOnCpu, WhatABlockDidNotWriteIsNotANumber) {
  const Device<float, 3> out;
  unwritten_kernel<<<2, 1, 16>>>(out.data());
  for (const float value : out.values()) EXPECT_TRUE(std::isnan(value));
}

__global__ void copy_kernel(const float* from, float* to, bool waits) {
  extern __shared__ float memory[];
  kernels::cuda::copy_async(kernels::cuda::shared_address(memory), from, true);
  kernels::cuda::commit_copies();
  if (waits) kernels::cuda::wait_copies<0>();
  *to = memory[0];
}

TEST(CudaOnCpu, CopiesThatNobodyWaitedForAreNotThere) {
  const Device<float, 4> from;
  const Device<float, 1> to;
  cudaMemsetAsync(from.data(), 0, 16, nullptr);
  copy_kernel<<<1, 1, 16>>>(from.data(), to.data(), false);
  EXPECT_TRUE(std::isnan(to.values()[0]));
  copy_kernel<<<1, 1, 16>>>(from.data(), to.data(), true);
  EXPECT_EQ(to.values()[0], 0.0f);
}

__global__ void write_kernel(float* to, int at) { to[at] = 0.0f; }

TEST(CudaOnCpuDeathTest, HostAndDeviceKeepToTheirMemory) {
  const Device<float, 64> memory;
  write_kernel<<<1, 1>>>(memory.data(), 63);
  EXPECT_DEATH((write_kernel<<<1, 1>>>(memory.data(), 64)), "what follows it");
  EXPECT_DEATH(*memory.data() = 0.0f, "the host touches memory of the device");
}

struct Streams {
  cudaStream_t one = nullptr, other = nullptr;
  cudaEvent_t event = nullptr;
  float* pinned = nullptr;
  Streams() {
    cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaMallocHost(reinterpret_cast<void**>(&pinned), sizeof(float));
  }
  ~Streams() {
    cudaStreamDestroy(one);
    cudaStreamDestroy(other);
    cudaEventDestroy(event);
    cudaFreeHost(pinned);
  }
};

TEST(CudaOnCpu, WorkIsNotDoneBeforeSomebodyWaits) {
  const Device<float, 1> memory;
  Streams streams;
  write_kernel<<<1, 1, 0, streams.one>>>(memory.data(), 0);
  cudaMemcpyAsync(streams.pinned, memory.data(), sizeof(float), cudaMemcpyDeviceToHost, streams.one);
  EXPECT_TRUE(std::isnan(*streams.pinned));
  EXPECT_EQ(cudaStreamQuery(streams.one), cudaErrorNotReady);
  EXPECT_TRUE(std::isnan(*streams.pinned));
  cudaStreamSynchronize(streams.one);
  EXPECT_EQ(*streams.pinned, 0.0f);
  EXPECT_EQ(cudaStreamQuery(streams.one), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(CudaOnCpu, StreamsWaitForEachOtherByEventsOnly) {
  for (const bool waits : {false, true}) {
    const Device<float, 1> memory;
    Streams streams;
    write_kernel<<<1, 1, 0, streams.one>>>(memory.data(), 0);
    cudaEventRecord(streams.event, streams.one);
    if (waits) cudaStreamWaitEvent(streams.other, streams.event);
    cudaMemcpyAsync(streams.pinned, memory.data(), sizeof(float), cudaMemcpyDeviceToHost, streams.other);
    cudaStreamSynchronize(streams.other);
    EXPECT_EQ(std::isnan(*streams.pinned), !waits);
  }
}

TEST(CudaOnCpu, CopiesFromOrdinaryMemoryTakeWhatIsThere) {
  const Device<float, 1> memory;
  Streams streams;
  float ordinary = 1;
  cudaMemcpyAsync(memory.data(), &ordinary, sizeof ordinary, cudaMemcpyHostToDevice, streams.one);
  ordinary = 2;
  cudaMemcpyAsync(&ordinary, memory.data(), sizeof ordinary, cudaMemcpyDeviceToHost, streams.one);
  EXPECT_EQ(ordinary, 1.0f);
}

TEST(CudaOnCpu, LaunchesThatNoGpuTakesFail) {
  stuck_kernel<<<1, 1025>>>();
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  stuck_kernel<<<dim3(1, 65536), 32>>>();
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace scd::cuda_on_cpu
