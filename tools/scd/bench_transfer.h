// `scd bench transfer`: what the data plane carries between two processes of this machine, beside what UCX's own
// benchmark reaches with the same settings in the same run.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

// Adds `transfer` (and the hidden `transfer-receiver`, its other end) to the `bench` command.
void add_bench_transfer_command(CLI::App& bench_app);

}  // namespace scd
