// out = silu(gate) * up for one row of n, out F32 or BF16.
#pragma once

#include <cstdint>

namespace scd::kernels::cpu {

void silu_mul_row_portable(const float* gate, const float* up, int64_t n, float* out);
void silu_mul_row_portable(const float* gate, const float* up, int64_t n, uint16_t* out);
void silu_mul_row_avx512(const float* gate, const float* up, int64_t n, float* out);
void silu_mul_row_avx512(const float* gate, const float* up, int64_t n, uint16_t* out);

}  // namespace scd::kernels::cpu
