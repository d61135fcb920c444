// Which codecs `scd bench pareto` measures, at which levels, and over which artifact.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace scd {

struct ParetoCodec {
  std::string name;     // "oracle", "raw", "rd"
  int32_t level = 0;    // 0 is the finest
  int32_t levels = 1;   // the codec has
  size_t artifact = 0;  // index into the artifacts; 0 for codecs without one
  std::string request() const { return levels > 1 ? name + "@" + std::to_string(level) : name; }
};

// `asked`: names of the registry, "rd@2" for one level, "rd" for all of them; empty: all that need no artifact and all
// that the artifacts are of. Oracle and raw come first, asked for or not. Throws Error: unknown names and levels, and
// codecs whose artifact is missing.
std::vector<ParetoCodec> choose_codecs(const std::vector<std::string>& asked,
                                       const std::vector<std::filesystem::path>& artifacts,
                                       const std::filesystem::path& producer);

}  // namespace scd
