// Ids as types.
#pragma once

#include <cstdint>

namespace scd {

using TokenId = int32_t;

}  // namespace scd
