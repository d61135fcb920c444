#include "kernels/sgemm.h"

namespace scd::kernels::cpu {

// Row by row of op(b), so that c and a transposed b are walked along their rows.
void sgemm_reference(const GemmArgs& args) {
  const int64_t inner = args.transpose_a ? args.a.rows : args.a.columns;
  for (int64_t row = 0; row < args.c.rows; ++row) {
    float* c = args.c.row<float>(row);
    // beta 0 overwrites, whatever c held.
    for (int64_t column = 0; column < args.c.columns; ++column) c[column] = args.beta == 0 ? 0 : args.beta * c[column];
    const auto a = [&](int64_t k) { return args.transpose_a ? args.a.row<float>(k)[row] : args.a.row<float>(row)[k]; };
    for (int64_t column = 0; args.transpose_b && column < args.c.columns; ++column) {
      float sum = 0.0f;
      for (int64_t k = 0; k < inner; ++k) sum += a(k) * args.b.row<float>(column)[k];
      c[column] += sum;
    }
    for (int64_t k = 0; !args.transpose_b && k < inner; ++k) {
      const float* b = args.b.row<float>(k);
      const float factor = a(k);
      for (int64_t column = 0; column < args.c.columns; ++column) c[column] += factor * b[column];
    }
  }
}

}  // namespace scd::kernels::cpu
