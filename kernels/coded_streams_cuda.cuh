// What both kernels of coded streams share. A warp a stream; its first 16 lanes hold the coder's states. Numbers,
// tables and places of several steps are fetched together, so that the chain from state to state is all that a step
// waits for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/coded_streams.h"
#include "kernels/cuda_common.cuh"

namespace scd::kernels::cuda::streams {

inline constexpr int kLanes = 16;
inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kAll = 0xFFFFFFFFU;
inline constexpr int kSteps = 8;  // whose loads are under way together
inline constexpr uint32_t kLowerBound = 1U << 16;
inline constexpr int kBits = 12;
inline constexpr int32_t kCentre = 128;
inline constexpr size_t kStateBytes = kLanes * sizeof(uint32_t);

__device__ inline int count_below(unsigned mask, unsigned lane) { return __popc(mask & ((1U << lane) - 1)); }

// Goes through the numbers of a stream row by row, 16 lanes side by side: where this lane's number of the current group
// stands. Groups beyond either end are at the first number and not `inside`.
struct Cursor {
  int32_t count, index, row, column, columns, row_step, column_step;

  __device__ Cursor(int32_t rows, int32_t of_columns, int32_t first) : count(rows * of_columns), index(first) {
    columns = of_columns;
    row = index / columns;
    column = index - row * columns;
    row_step = kLanes / columns;
    column_step = kLanes % columns;
  }
  __device__ bool inside() const { return static_cast<uint32_t>(index) < static_cast<uint32_t>(count); }
  __device__ void forward() {
    index += kLanes;
    row += row_step;
    column += column_step;
    const bool over = column >= columns;
    column -= over ? columns : 0;
    row += over ? 1 : 0;
  }
  __device__ void back() {
    index -= kLanes;
    row -= row_step;
    column -= column_step;
    const bool under = column < 0;
    column += under ? columns : 0;
    row -= under ? 1 : 0;
  }
};

// A queue beside the thread's: what is put into it between begin() and end() comes after what the thread had queued.
class SideQueue {
 public:
  SideQueue() {
    cuda::stream();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    check(cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
  }
  SideQueue(const SideQueue&) = delete;
  SideQueue& operator=(const SideQueue&) = delete;
  ~SideQueue() {
    cudaEventDestroy(queued_);
    cudaEventDestroy(done_);
    cudaStreamDestroy(stream_);
  }

  cudaStream_t stream() const { return stream_; }
  void begin() {
    check(cudaEventRecord(queued_, cuda::stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_, queued_), "cudaStreamWaitEvent");
  }
  void end() { check(cudaEventRecord(done_, stream_), "cudaEventRecord"); }
  bool idle() const { return cudaEventQuery(done_) == cudaSuccess; }
  void wait(const char* what) const { check(cudaEventSynchronize(done_), what); }
  void wait_quietly() const noexcept { cudaEventSynchronize(done_); }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t queued_ = nullptr, done_ = nullptr;
};

inline std::byte* grown(DeviceBuffer& buffer, size_t bytes) {
  if (buffer.size() < bytes) {
    buffer = DeviceBuffer();
    buffer = DeviceBuffer(Device::kCuda, bytes + bytes / 4);
  }
  return buffer.data();
}

inline std::byte* staged(HostStaging& staging, size_t bytes) {
  return static_cast<std::byte*>(staging.matrix(1, static_cast<int64_t>((bytes + 3) / 4)).data);
}

}  // namespace scd::kernels::cuda::streams
