// What both kernels of coded streams share. A warp a stream; its first 16 lanes hold the coder's states. Numbers,
// tables and places of several steps are fetched together, so that the chain from state to state is all that a step
// waits for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/coded_streams.h"
#include "kernels/cuda_common.cuh"
#include "kernels/side_queue.cuh"

namespace scd::kernels::cuda::streams {

inline constexpr int kLanes = 16;
inline constexpr unsigned kWarp = 32;
inline constexpr unsigned kAll = 0xFFFFFFFFU;
// A warp waits for its chain most of the time; together in a block they leave the other multiprocessors whole to what
// runs beside them.
inline constexpr unsigned kStreamsOfBlock = 8;
inline constexpr unsigned kThreadsOfBlock = kStreamsOfBlock * kWarp;
inline constexpr unsigned blocks_of(size_t streams) {
  return static_cast<unsigned>((streams + kStreamsOfBlock - 1) / kStreamsOfBlock);
}
// By a shuffle, so that the compiler knows that it is the same for all lanes, and that they stay together.
__device__ inline unsigned stream_of_warp() {
  return blockIdx.x * kStreamsOfBlock + __shfl_sync(kAll, threadIdx.x / kWarp, 0);
}
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

inline std::byte* grown(DeviceBuffer& buffer, size_t bytes) {
  if (buffer.size() < bytes) grow(buffer, Device::kGpu, bytes + bytes / 4);
  return buffer.data();
}

inline std::byte* staged(HostStaging& staging, size_t bytes) {
  return static_cast<std::byte*>(staging.matrix(1, static_cast<int64_t>((bytes + 3) / 4)).data);
}

}  // namespace scd::kernels::cuda::streams
