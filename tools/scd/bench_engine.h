// `scd bench engine`: prefill and decode speed against the machine's own limits, measured in the same run.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

// Adds `engine` to the `bench` command.
void add_bench_engine_command(CLI::App& bench);

}  // namespace scd
