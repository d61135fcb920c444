#include "kernels/second_moment.h"

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {

void add_second_moment(ConstMatrix rows, double* triangle) {
  require_matrix(rows, "the rows of add_second_moment");
  require(rows.dtype == DType::kF32, "add_second_moment: the rows ", rows, " must be F32");
  if (rows.rows > 0 && rows.columns > 0) SCD_DISPATCH(rows.device, add_second_moment(rows, triangle));
}

}  // namespace scd::kernels
