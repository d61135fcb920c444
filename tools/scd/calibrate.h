// `scd calibrate`: fits the `scd` codec for a pair of models and writes its artifact.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_calibrate_command(CLI::App& app);

}  // namespace scd
