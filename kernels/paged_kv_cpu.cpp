// Memory-bound copies between rows and pages.
#include "kernels/cpu_kernels.h"
#include "kernels/number.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kParallelRows = 16;

// Where a token's slice of a head starts, in elements.
int64_t element_of(const PagedKv& kv, const SequenceRows& sequence, int64_t position, int64_t head) {
  const int64_t page = sequence.page_ids[static_cast<size_t>(position / kv.page_tokens)];
  return ((page * kv.kv_heads + head) * kv.page_tokens + position % kv.page_tokens) * kv.head_dim;
}

template <class Stored>
void write_row(const PagedKv& kv, const SequenceRows& sequence, int64_t position, const float* from, void* pages) {
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    Stored* to = static_cast<Stored*>(pages) + element_of(kv, sequence, position, head);
    for (int64_t i = 0; i < kv.head_dim; ++i) store_float(from[head * kv.head_dim + i], to[i]);
  }
}

template <class Stored>
void read_row(const PagedKv& kv, const SequenceRows& sequence, int64_t position, const void* pages, float* to) {
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    const Stored* from = static_cast<const Stored*>(pages) + element_of(kv, sequence, position, head);
    for (int64_t i = 0; i < kv.head_dim; ++i) to[head * kv.head_dim + i] = load_float(from[i]);
  }
}

template <class Stored>
void write_sequence(const PagedKv& kv, const SequenceRows& sequence, ConstMatrix keys, ConstMatrix values) {
#pragma omp parallel for schedule(static) if (sequence.rows > kParallelRows)
  for (int64_t r = 0; r < sequence.rows; ++r) {
    const int64_t position = sequence.first_position + r;
    write_row<Stored>(kv, sequence, position, keys.row<float>(sequence.first_row + r), kv.keys);
    write_row<Stored>(kv, sequence, position, values.row<float>(sequence.first_row + r), kv.values);
  }
}

template <class Stored>
void read_sequence(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
#pragma omp parallel for schedule(static) if (sequence.rows > kParallelRows)
  for (int64_t r = 0; r < sequence.rows; ++r) {
    const int64_t position = sequence.first_position + r;
    read_row<Stored>(kv, sequence, position, kv.keys, keys.row<float>(r));
    read_row<Stored>(kv, sequence, position, kv.values, values.row<float>(r));
  }
}

}  // namespace

void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values) {
  for (const SequenceRows& sequence : sequences.host) {
    if (kv.dtype == DType::kF32) {
      write_sequence<float>(kv, sequence, keys, values);
    } else {
      write_sequence<BFloat16>(kv, sequence, keys, values);
    }
  }
}

void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
  if (kv.dtype == DType::kF32) {
    read_sequence<float>(kv, sequence, keys, values);
  } else {
    read_sequence<BFloat16>(kv, sequence, keys, values);
  }
}

}  // namespace scd::kernels::cpu
