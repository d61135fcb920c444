// What `scd inspect` prints of a codec artifact.
#pragma once

#include <filesystem>
#include <iosfwd>

namespace scd {

// Whether the directory has the form of a codec artifact (not whether it is sound).
bool looks_like_artifact(const std::filesystem::path& directory);

// Models, layers, sizes, calibration and predictions. Reads and checks all of it; throws as load_encoder() does.
void print_artifact(const std::filesystem::path& directory, std::ostream& out);

}  // namespace scd
