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

// row: of the sequence. Each pair of types has its own loop.
template <class Row, class Stored>
void write_row(const PagedKv& kv, const SequenceRows& sequence, int64_t row, const Row* from, void* pages) {
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    Stored* to = static_cast<Stored*>(pages) + element_of(kv, sequence, sequence.first_position + row, head);
    for (int64_t i = 0; i < kv.head_dim; ++i) store_float(load_float(from[head * kv.head_dim + i]), to[i]);
  }
}

template <class Row, class Stored>
void read_row(const PagedKv& kv, const SequenceRows& sequence, int64_t row, const void* pages, Row* to) {
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    const Stored* from =
        static_cast<const Stored*>(pages) + element_of(kv, sequence, sequence.first_position + row, head);
    for (int64_t i = 0; i < kv.head_dim; ++i) store_float(load_float(from[i]), to[head * kv.head_dim + i]);
  }
}

template <class Row, class Stored>
void write_sequence(const PagedKv& kv, const SequenceRows& sequence, ConstMatrix keys, ConstMatrix values) {
#pragma omp parallel for schedule(static) if (sequence.rows > kParallelRows)
  for (int64_t r = 0; r < sequence.rows; ++r) {
    write_row<Row, Stored>(kv, sequence, r, keys.row<Row>(sequence.first_row + r), kv.keys);
    write_row<Row, Stored>(kv, sequence, r, values.row<Row>(sequence.first_row + r), kv.values);
  }
}

template <class Row, class Stored>
void read_sequence(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
#pragma omp parallel for schedule(static) if (sequence.rows > kParallelRows)
  for (int64_t r = 0; r < sequence.rows; ++r) {
    read_row<Row, Stored>(kv, sequence, r, kv.keys, keys.row<Row>(r));
    read_row<Row, Stored>(kv, sequence, r, kv.values, values.row<Row>(r));
  }
}

// Calls f<type of the rows, type in the pages>().
template <class F>
void with_types(DType rows, DType stored, F f) {
  const auto with_rows = [&]<class Row>() {
    stored == DType::kF32 ? f.template operator()<Row, float>() : f.template operator()<Row, BFloat16>();
  };
  rows == DType::kF32 ? with_rows.template operator()<float>() : with_rows.template operator()<BFloat16>();
}

}  // namespace

void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values) {
  for (const SequenceRows& sequence : sequences.host) {
    with_types(keys.dtype, kv.dtype,
               [&]<class Row, class Stored>() { write_sequence<Row, Stored>(kv, sequence, keys, values); });
  }
}

void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values) {
  with_types(keys.dtype, kv.dtype,
             [&]<class Row, class Stored>() { read_sequence<Row, Stored>(kv, sequence, keys, values); });
}

}  // namespace scd::kernels::cpu
