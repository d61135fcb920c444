// Rotary position embedding (Su et al. 2021, arXiv:2104.09864), half-split layout as Hugging Face checkpoints use it:
// the pair of element i is i + head_dim / 2.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/matrix.h"
#include "kernels/sequences.h"

namespace scd::kernels {

// Inverse frequencies [head_dim / 2] with any scaling already applied. attention_scale multiplies cos and sin.
struct RopeTable {
  std::vector<float> inverse_frequencies;
  float attention_scale = 1.0f;
  bool operator==(const RopeTable&) const = default;
};

enum class RopeDirection { kRotate, kUnrotate };  // kUnrotate undoes kRotate

// Throw std::invalid_argument where rope() would; the first whatever the positions.
void check_rope_heads(const ConstMatrix& x, int64_t head_dim, const RopeTable& table);
void check_rope(const ConstMatrix& x, int64_t head_dim, const Indices& positions, const RopeTable& table);

// x [rows, heads * head_dim] F32 in place; positions [rows].
void rope(Matrix x, int64_t head_dim, Indices positions, const RopeTable& table, RopeDirection direction);

}  // namespace scd::kernels
