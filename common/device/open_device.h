// The device that a configuration names.
#pragma once

#include <string>

#include "kernels/matrix.h"

namespace scd {

// "cpu", "cuda:N", or "cuda" for the first GPU. Throws Error: INVALID_ARGUMENT for another name, FAILED_PRECONDITION
// with the reason where the GPU cannot be used.
kernels::Device open_device(const std::string& name);

}  // namespace scd
