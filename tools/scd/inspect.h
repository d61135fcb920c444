// `scd inspect`: what is inside a checkpoint or a codec artifact.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_inspect_command(CLI::App& app);

}  // namespace scd
