// `scd bench kernels`: each op of the forward pass against the limits of the device, measured in the same run.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

// Adds `kernels` to the `bench` command.
void add_bench_kernels_command(CLI::App& bench);

}  // namespace scd
