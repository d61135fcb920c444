// Sums over the rows of a matrix, in double: means and variances of what calibration sees. Bounded by memory.
#pragma once

#include <span>

#include "kernels/matrix.h"

namespace scd::kernels {

// m [n, columns] F32 -> of every column the sum of its values and of their squares, on the host. Waits. The order of
// summation follows from the shape alone.
void column_sums(ConstMatrix m, std::span<double> sums, std::span<double> squares);

}  // namespace scd::kernels
