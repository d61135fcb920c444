// SwiGLU of one row in plain vectors; compiled once per instruction set.
#pragma once

#include "kernels/lanes.h"
#include "kernels/silu_row.h"

namespace scd::kernels::cpu {
namespace {

SCD_LANES_INLINE Lanes silu_times(Lanes gate, Lanes up) { return gate / (1.0f + exponential(-gate)) * up; }

template <class Out>
void silu_mul_lanes(const float* gate, const float* up, int64_t n, Out* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(silu_times(load(gate + i), load(up + i)), out + i);
  if (i == n) return;
  float gate_tail[kLanes] = {};
  float up_tail[kLanes] = {};
  Out out_tail[kLanes];
  std::memcpy(gate_tail, gate + i, static_cast<size_t>(n - i) * sizeof(float));
  std::memcpy(up_tail, up + i, static_cast<size_t>(n - i) * sizeof(float));
  store(silu_times(load(gate_tail), load(up_tail)), out_tail);
  std::memcpy(out + i, out_tail, static_cast<size_t>(n - i) * sizeof(Out));
}

}  // namespace
}  // namespace scd::kernels::cpu
