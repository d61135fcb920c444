// The checks that every op over a ragged, paged batch shares.
#pragma once

#include <span>

#include "kernels/paged_kv.h"

namespace scd::kernels {

void check_paged_kv(const PagedKv& kv, const char* op);
// Rows inside [0, total_rows), pages for every position up to the last row, page ids of the pool.
void check_sequences(const PagedKv& kv, std::span<const SequenceRows> sequences, int64_t total_rows, const char* op);

}  // namespace scd::kernels
