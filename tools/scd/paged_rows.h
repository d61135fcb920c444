// Made-up keys and values in pages, and sequences whose next rows are to be computed over them: for benchmarks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/kv/kv_cache.h"
#include "common/model/model_shapes.h"
#include "kernels/paged_kv.h"
#include "kernels/ragged_batch.h"
#include "tools/scd/filled_matrix.h"

namespace scd {

struct RowsOfSequences {
  int64_t sequences = 1;
  int64_t of_sequence = 1;
  int64_t first_position = 0;  // keys and values of those before it are there
  int64_t all() const { return sequences * of_sequence; }
};

class PagedRows {
 public:
  PagedRows(const ModelShape& shape, kernels::Device device, kernels::DType dtype, const RowsOfSequences& rows)
      : pages_of_sequence_((rows.first_position + rows.of_sequence + kPageTokens - 1) / kPageTokens),
        pages_(rows.sequences * pages_of_sequence_),
        memory_(device, 2 * pages_ * kPageTokens, int64_t{shape.kv_heads} * shape.head_dim, dtype, 4),
        kv_{.keys = memory_->data,
            .values = static_cast<std::byte*>(memory_->data) +
                      static_cast<size_t>(memory_->rows / 2 * memory_->columns) * kernels::size_of(dtype),
            .kv_heads = shape.kv_heads,
            .page_tokens = kPageTokens,
            .head_dim = shape.head_dim,
            .dtype = dtype,
            .device = device,
            .pages = pages_},
        batch_(device) {
    tables_.resize(static_cast<size_t>(rows.sequences));
    std::vector<kernels::SequenceRows> sequences;
    int32_t next = 0;
    for (auto& table : tables_) {
      for (int64_t page = 0; page < pages_of_sequence_; ++page) table.push_back(next++);
      sequences.push_back({table, std::ssize(sequences) * rows.of_sequence, rows.of_sequence, rows.first_position});
    }
    batch_.assign({}, sequences);
  }
  PagedRows(const PagedRows&) = delete;
  PagedRows& operator=(const PagedRows&) = delete;

  const kernels::PagedKv& kv() const { return kv_; }
  const kernels::RaggedBatch& batch() const { return batch_; }

 private:
  const int64_t pages_of_sequence_, pages_;
  const FilledMatrix memory_;
  const kernels::PagedKv kv_;
  std::vector<std::vector<int32_t>> tables_;  // of page ids; the batch refers to them
  kernels::RaggedBatch batch_;
};

}  // namespace scd
