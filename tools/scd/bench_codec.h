// `scd bench codec`: how fast codec `rd` codes on one core, part by part, beside what the GEMM and the memory of this
// machine allow in the same run.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

// Adds `codec` to the `bench` command.
void add_bench_codec_command(CLI::App& bench);

}  // namespace scd
