// `scd make-artifact`: an artifact of codec rd that nobody calibrated, for benchmarks of time.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_make_artifact_command(CLI::App& app);

}  // namespace scd
