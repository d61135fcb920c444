// "Did you mean": the known key that is fewest edits away.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace scd {

// Empty where no key is near.
std::string nearest_key(std::string_view wanted, const std::vector<std::string>& known);

}  // namespace scd
