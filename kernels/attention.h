// Causal attention over a paged cache, ragged batch, grouped queries: blocked over keys with a running softmax
// (Dao et al. 2022, arXiv:2205.14135; Milakov and Gimelshein 2018, arXiv:1805.02867); no [tokens, tokens] matrix
// exists.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/matrix.h"
#include "kernels/paged_kv.h"

namespace scd::kernels {

struct AttentionArgs {
  ConstMatrix queries;  // [total rows, query_heads * head_dim] F32, after RoPE
  Matrix output;        // [total rows, query_heads * head_dim] F32 or BF16
  PagedKv kv;           // holds the keys of the rows themselves too (write_kv ran before)
  Sequences sequences;
  int64_t query_heads = 0;
  float scale = 0.0f;
  int64_t sliding_window = 0;  // 0: none; else position p sees keys in (p - window, p]
};

void paged_attention(const AttentionArgs& args);

}  // namespace scd::kernels
