// A token of the vocabulary, as every stage passes it on.
#pragma once

#include <cstdint>

namespace scd {

using TokenId = std::int32_t;

}  // namespace scd
