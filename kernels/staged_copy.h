// Large copies between the host's memory and the GPU by way of page-locked memory, piece by piece: all cores fill or
// empty one piece while the one before is on its way. CUDA's own copies of memory that is not page-locked have one core
// do that, and its first touch of fresh pages.
#pragma once

#include <cstddef>

namespace scd::kernels::cuda {

// Rows of bytes, `pitch` apart.
struct ByteRows {
  std::byte* data = nullptr;
  size_t pitch = 0;
};
struct ConstByteRows {
  const std::byte* data = nullptr;
  size_t pitch = 0;
};

struct RowSizes {
  size_t rows = 0;
  size_t row_bytes = 0;
};

// Below it staging costs more to begin than it saves.
inline constexpr size_t kFewestStagedBytes = size_t{16} << 20;

// One side is the host's, the other the GPU's. Waits.
void staged_upload(ConstByteRows from, ByteRows to, RowSizes sizes);
void staged_download(ConstByteRows from, ByteRows to, RowSizes sizes);

// On the host, by all cores.
void copy_rows_on_host(ConstByteRows from, ByteRows to, RowSizes sizes);

}  // namespace scd::kernels::cuda
