// Memory of a GPU for what codecs leave there for a while.
#pragma once

#include <cstddef>
#include <memory>

#include "kernels/device.h"

namespace scd {

// At least so many bytes, contents undefined. Memory is given back only when all that was queued is done, so that the
// thread keeps some: work there is queued in order, and what is no longer used it may use again at once.
std::shared_ptr<const kernels::DeviceBuffer> block_memory(size_t bytes);

}  // namespace scd
