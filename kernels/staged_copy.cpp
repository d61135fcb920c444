#include "kernels/staged_copy.h"

#include <cstdint>
#include <cstring>

namespace scd::kernels::cuda {

void copy_rows_on_host(ConstByteRows from, ByteRows to, RowSizes sizes) {
#pragma omp parallel for schedule(static)
  for (size_t row = 0; row < sizes.rows; ++row) {
    std::memcpy(to.data + row * to.pitch, from.data + row * from.pitch, sizes.row_bytes);
  }
}

}  // namespace scd::kernels::cuda
