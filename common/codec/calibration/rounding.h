// How calibrated values are rounded before they are judged and stored (tensor_file.h).
#pragma once

#include <vector>

#include "common/codec/dense_matrix.h"

namespace scd {

// Rounds to the nearest BF16 in place.
void round_to_bf16(std::vector<float>& values);

// Each column a multiple of its own scale of 8 bits, from -127 to 127 times: how decoder maps are stored. What is lost
// is 16e-6 of a column's energy where its values are alike, far below what a fit leaves.
void round_columns_to_int8(DenseMatrix& matrix);

}  // namespace scd
