// What the two tiled forms of attention share: what a kernel is told, and the launch.
#pragma once

#include <type_traits>

#include "kernels/attention.h"
#include "kernels/cuda_common.cuh"

namespace scd::kernels::cuda {

inline constexpr int kPageShift = 4;  // pages of 16 tokens

struct Tiles {
  DeviceSequences sequences;
  const float* queries;
  int64_t query_stride;
  const __nv_bfloat16* keys;
  const __nv_bfloat16* values;
  int kv_heads;
  int group;  // query heads of a KV head
  int sliding_window;
  float scale;  // times log2(e): weights are powers of two
};

inline Tiles tiles_of(const AttentionArgs& args, const DeviceSequences& sequences) {
  constexpr float kLog2E = 1.44269504f;
  return {sequences,
          static_cast<const float*>(args.queries.data),
          args.queries.row_stride,
          static_cast<const __nv_bfloat16*>(args.kv.keys),
          static_cast<const __nv_bfloat16*>(args.kv.values),
          static_cast<int>(args.kv.kv_heads),
          static_cast<int>(args.query_heads / args.kv.kv_heads),
          static_cast<int>(args.sliding_window),
          args.scale * kLog2E};
}

// Calls f(head size as std::integral_constant, null pointer of the output's type).
template <class F>
void with_tile_shape(const AttentionArgs& args, F f) {
  const auto with_output = [&](auto head_dim) {
    if (args.output.dtype == DType::kF32) {
      f(head_dim, static_cast<float*>(nullptr));
    } else {
      f(head_dim, static_cast<__nv_bfloat16*>(nullptr));
    }
  };
  if (args.kv.head_dim == 64) {
    with_output(std::integral_constant<int, 64>());
  } else {
    with_output(std::integral_constant<int, 128>());
  }
}

// One block a tile and query head, query heads of a tile side by side.
template <auto kKernel, class Out>
void launch_tiles(const AttentionArgs& args, const DeviceSequences& sequences, int threads, int shared_bytes) {
  static const bool raised = [shared_bytes] {
    check(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
          "shared memory of paged_attention");
    return true;
  }();
  static_cast<void>(raised);
  const dim3 grid(static_cast<unsigned>(args.query_heads), static_cast<unsigned>(sequences.tile_count));
  kKernel<<<grid, threads, shared_bytes, stream()>>>(tiles_of(args, sequences), static_cast<Out*>(args.output.data),
                                                     args.output.row_stride);
  check_launch("paged_attention of tiles");
}

}  // namespace scd::kernels::cuda
