// The slow, obvious form: one query head of one row at a time over its keys, two passes, sums in double.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu_kernels.h"
#include "kernels/number.h"

namespace scd::kernels::cpu {
namespace {

struct Row {
  const SequenceRows* sequence;
  int64_t index;     // in the batch
  int64_t position;  // in the sequence
};

template <class Stored>
const Stored* token_of(const PagedKv& kv, const void* pages, const Row& row, int64_t position, int64_t head) {
  const int64_t page = row.sequence->page_ids[static_cast<size_t>(position / kv.page_tokens)];
  return static_cast<const Stored*>(pages) +
         ((page * kv.kv_heads + head) * kv.page_tokens + position % kv.page_tokens) * kv.head_dim;
}

template <class Stored>
void attend(const AttentionArgs& args, const Row& row, int64_t query_head) {
  const PagedKv& kv = args.kv;
  const int64_t kv_head = query_head / (args.query_heads / kv.kv_heads);
  const int64_t first = args.sliding_window == 0 ? 0 : std::max<int64_t>(0, row.position - args.sliding_window + 1);
  const float* query = args.queries.row<float>(row.index) + query_head * kv.head_dim;
  std::vector<float> weights(static_cast<size_t>(row.position + 1 - first));
  float largest = -INFINITY;
  for (int64_t p = first; p <= row.position; ++p) {
    const Stored* key = token_of<Stored>(kv, kv.keys, row, p, kv_head);
    float dot = 0.0f;
    for (int64_t i = 0; i < kv.head_dim; ++i) dot += query[i] * load_float(key[i]);
    weights[static_cast<size_t>(p - first)] = dot * args.scale;
    largest = std::max(largest, dot * args.scale);
  }
  std::vector<double> sums(static_cast<size_t>(kv.head_dim));
  double total = 0.0;
  for (int64_t p = first; p <= row.position; ++p) {
    const double weight = std::exp(weights[static_cast<size_t>(p - first)] - largest);
    const Stored* value = token_of<Stored>(kv, kv.values, row, p, kv_head);
    total += weight;
    for (int64_t i = 0; i < kv.head_dim; ++i) sums[static_cast<size_t>(i)] += weight * load_float(value[i]);
  }
  for (int64_t i = 0; i < kv.head_dim; ++i) {
    const float result = static_cast<float>(sums[static_cast<size_t>(i)] / total);
    const int64_t column = query_head * kv.head_dim + i;
    if (args.output.dtype == DType::kF32) {
      args.output.row<float>(row.index)[column] = result;
    } else {
      store_float(result, args.output.row<BFloat16>(row.index)[column]);
    }
  }
}

}  // namespace

void paged_attention(const AttentionArgs& args) {
  for (const SequenceRows& sequence : args.sequences) {
#pragma omp parallel for schedule(dynamic, 4) collapse(2)
    for (int64_t r = 0; r < sequence.rows; ++r) {
      for (int64_t head = 0; head < args.query_heads; ++head) {
        const Row row{&sequence, sequence.first_row + r, sequence.first_position + r};
        if (args.kv.dtype == DType::kF32) {
          attend<float>(args, row, head);
        } else {
          attend<BFloat16>(args, row, head);
        }
      }
    }
  }
}

}  // namespace scd::kernels::cpu
