#include "kernels/silu_lanes.h"

namespace scd::kernels::cpu {

void silu_mul_row_avx512(const float* gate, const float* up, int64_t n, float* out) {
  silu_mul_lanes(gate, up, n, out);
}

void silu_mul_row_avx512(const float* gate, const float* up, int64_t n, uint16_t* out) {
  silu_mul_lanes(gate, up, n, out);
}

}  // namespace scd::kernels::cpu
