#include <vector>

#include "kernels/sgemm.h"

namespace scd::kernels::cpu {

// Row by row, summed in double, so that calibration can stand on it.
void sgemm_reference(const GemmArgs& args) {
  const int64_t inner = args.transpose_a ? args.a.rows : args.a.columns;
  std::vector<double> sums(static_cast<size_t>(args.c.columns));
  for (int64_t row = 0; row < args.c.rows; ++row) {
    const auto a = [&](int64_t k) { return args.transpose_a ? args.a.row<float>(k)[row] : args.a.row<float>(row)[k]; };
    float* c = args.c.row<float>(row);
    // beta 0 overwrites, whatever c held.
    for (size_t column = 0; column < sums.size(); ++column) {
      sums[column] = args.beta == 0 ? 0 : static_cast<double>(args.beta) * c[column];
    }
    for (int64_t k = 0; k < inner; ++k) {
      const double factor = a(k);
      for (size_t column = 0; column < sums.size(); ++column) {
        const auto index = static_cast<int64_t>(column);
        sums[column] += factor * (args.transpose_b ? args.b.row<float>(index)[k] : args.b.row<float>(k)[index]);
      }
    }
    for (size_t column = 0; column < sums.size(); ++column) c[column] = static_cast<float>(sums[column]);
  }
}

}  // namespace scd::kernels::cpu
