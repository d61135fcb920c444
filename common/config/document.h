// A YAML document as a plain tree that remembers where each value stands. Bounded: size, depth and number of values.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace scd {

struct ConfigNode {
  enum class Kind { kNothing, kScalar, kList, kMapping };

  Kind kind = Kind::kNothing;
  std::string scalar = {};
  std::vector<std::string> items = {};                            // kList: of scalars
  std::vector<std::pair<std::string, ConfigNode>> children = {};  // kMapping, in file order; kList: of mappings
  std::string where = {};                                         // "file:line", or "--set a.b=c"

  ConfigNode* find(const std::string& key);
};

// Throws Error: NOT_FOUND, or INVALID_ARGUMENT with file:line.
ConfigNode read_config_file(const std::filesystem::path& file);

// Applies "path=value" to the tree, making mappings on the way. Throws Error INVALID_ARGUMENT.
void apply_override(ConfigNode& root, const std::string& assignment);

}  // namespace scd
