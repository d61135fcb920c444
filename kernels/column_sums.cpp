#include "kernels/column_sums.h"

#include <algorithm>

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {

void column_sums(ConstMatrix m, std::span<double> sums, std::span<double> squares) {
  require_matrix(m, "the matrix of column_sums");
  require(m.dtype == DType::kF32 && static_cast<int64_t>(sums.size()) == m.columns && sums.size() == squares.size(),
          "column_sums: ", static_cast<int64_t>(sums.size()), " sums and ", static_cast<int64_t>(squares.size()),
          " squares for the matrix ", m, ", which must be F32");
  std::ranges::fill(sums, 0.0);
  std::ranges::fill(squares, 0.0);
  if (m.rows > 0 && m.columns > 0) SCD_DISPATCH(m.device, column_sums(m, sums, squares));
}

}  // namespace scd::kernels
