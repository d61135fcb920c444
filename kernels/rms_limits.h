// What CPU and CUDA share of the scalings by root mean square.
#pragma once

namespace scd::kernels {

inline constexpr double kSmallestSquare = 1e-12;  // added to mean squares, so that rows of zeros have a scale

}  // namespace scd::kernels
