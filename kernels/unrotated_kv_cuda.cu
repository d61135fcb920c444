// A block a row: its turns once, then keys and values of all layers; a thread moves four neighbours at once where heads
// and rows allow it, else one.
#include <type_traits>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/paged_kv.cuh"
#include "kernels/rope.cuh"

namespace scd::kernels::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr size_t kMostLayers = 32;  // of a launch

struct Layers {
  void* keys[kMostLayers];
  void* values[kMostLayers];
  unsigned count;
};

template <int kWidth, class T>
struct alignas(kWidth * sizeof(T)) Pack {
  T values[kWidth];
};

template <int kWidth, class T>
__device__ Pack<kWidth, T> loaded(const T* from) {
  return *reinterpret_cast<const Pack<kWidth, T>*>(from);
}
template <int kWidth, class T>
__device__ void put(const Pack<kWidth, T>& pack, T* to) {
  *reinterpret_cast<Pack<kWidth, T>*>(to) = pack;
}

template <int kWidth, class From, class To>
__device__ void move(const From* from, To* to) {
  const Pack<kWidth, From> in = loaded<kWidth>(from);
  Pack<kWidth, To> out;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) store(to_float(in.values[i]), out.values + i);
  put<kWidth>(out, to);
}

// The first halves of kWidth pairs at from and to, the second ones `pairs` further on.
template <int kWidth, class From, class To>
__device__ void move_turned(const From* from, To* to, const Turns& turns, unsigned pair, unsigned pairs) {
  const Pack<kWidth, From> low = loaded<kWidth>(from), high = loaded<kWidth>(from + pairs);
  Pack<kWidth, To> first, second;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    const float2 result = turns.turned(to_float(low.values[i]), to_float(high.values[i]), pair + i);
    store(result.x, first.values + i);
    store(result.y, second.values + i);
  }
  put<kWidth>(first, to);
  put<kWidth>(second, to + pairs);
}

// Rows [keys of all layers] and [values of all layers], from this launch's first layer on.
template <class Number>
struct Rows {
  Number* keys;
  int64_t key_stride;
  Number* values;
  int64_t value_stride;
};

// kRead: pages to rows, else rows to pages.
template <bool kRead, int kWidth, class Stored>
__global__ void __launch_bounds__(kThreads)
    move_kernel(Pool pool, __grid_constant__ const Layers layers, const int32_t* page_ids, int64_t first_position,
                Rows<std::conditional_t<kRead, float, const float>> rows, __grid_constant__ const Rotation rotation) {
  __shared__ Turns turns;
  const int64_t row = blockIdx.x, position = first_position + row;
  turns.fill(rotation, static_cast<int32_t>(position));
  const TokenPlace place(pool, page_ids, position);
  const unsigned width = pool.width(), pairs = rotation.pairs;
  auto* const keys = rows.keys + row * rows.key_stride;
  auto* const values = rows.values + row * rows.value_stride;
  const unsigned key_items = width / 2 / kWidth, value_items = width / kWidth;
  for (unsigned item = threadIdx.x; item < layers.count * key_items; item += kThreads) {
    const unsigned layer = item / key_items, index = item % key_items * kWidth;
    const unsigned pair = index % pairs, column = index / pairs * 2 * pairs + pair;
    auto* const page = static_cast<Stored*>(layers.keys[layer]) + place.at(column);
    auto* const number = keys + layer * width + column;
    if constexpr (kRead) {
      move_turned<kWidth>(page, number, turns, pair, pairs);
    } else {
      move_turned<kWidth>(number, page, turns, pair, pairs);
    }
  }
  for (unsigned item = threadIdx.x; item < layers.count * value_items; item += kThreads) {
    const unsigned layer = item / value_items, column = item % value_items * kWidth;
    auto* const page = static_cast<Stored*>(layers.values[layer]) + place.at(column);
    auto* const number = values + layer * width + column;
    if constexpr (kRead) {
      move<kWidth>(page, number);
    } else {
      move<kWidth>(number, page);
    }
  }
}

bool fours(const void* data, int64_t stride, DType dtype) {
  return reinterpret_cast<uintptr_t>(data) % (4 * size_of(dtype)) == 0 && stride % 4 == 0;
}

// What every launch of a call has in common.
struct Move {
  Pool pool;
  const int32_t* page_ids;
  int64_t first_position;
  unsigned rows;
  Rotation rotation;
};

template <bool kRead, class Stored, class Number>
void launch(const Move& move, const Layers& layers, const Rows<Number>& rows, bool wide) {
  if (wide) {
    move_kernel<kRead, 4, Stored><<<move.rows, kThreads, 0, stream()>>>(move.pool, layers, move.page_ids,
                                                                        move.first_position, rows, move.rotation);
  } else {
    move_kernel<kRead, 1, Stored><<<move.rows, kThreads, 0, stream()>>>(move.pool, layers, move.page_ids,
                                                                        move.first_position, rows, move.rotation);
  }
  check_launch("moving keys and values");
}

template <bool kRead, class Number>
void move_layers(std::span<const PagedKv> all, const SequenceRows& sequence, const RopeTable& table,
                 Rows<Number> rows) {
  const PagedKv& shape = all.front();
  const Move move{{shape.kv_heads, shape.page_tokens, shape.head_dim},
                  on_device(Indices(sequence.page_ids)),
                  sequence.first_position,
                  static_cast<unsigned>(sequence.rows),
                  rotation_of(shape.head_dim, table, kRead ? RopeDirection::kUnrotate : RopeDirection::kRotate)};
  while (!all.empty()) {
    Layers layers{};
    bool wide = move.rotation.pairs % 4 == 0 && fours(rows.keys, rows.key_stride, DType::kF32) &&
                fours(rows.values, rows.value_stride, DType::kF32);
    for (; layers.count < kMostLayers && layers.count < all.size(); ++layers.count) {
      const PagedKv& kv = all[layers.count];
      layers.keys[layers.count] = kv.keys;
      layers.values[layers.count] = kv.values;
      wide = wide && fours(kv.keys, 0, kv.dtype) && fours(kv.values, 0, kv.dtype);
    }
    if (shape.dtype == DType::kF32) {
      launch<kRead, float>(move, layers, rows, wide);
    } else {
      launch<kRead, __nv_bfloat16>(move, layers, rows, wide);
    }
    all = all.subspan(layers.count);
    rows.keys += layers.count * move.pool.width();
    rows.values += layers.count * move.pool.width();
  }
}

}  // namespace

void read_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                       Matrix keys, Matrix values) {
  move_layers<true, float>(
      layers, sequence, table,
      {static_cast<float*>(keys.data), keys.row_stride, static_cast<float*>(values.data), values.row_stride});
}

void write_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                        ConstMatrix keys, ConstMatrix values) {
  move_layers<false, const float>(layers, sequence, table,
                                  {static_cast<const float*>(keys.data), keys.row_stride,
                                   static_cast<const float*>(values.data), values.row_stride});
}

}  // namespace scd::kernels::cuda
