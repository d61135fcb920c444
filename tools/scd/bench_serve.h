// `scd bench serve`: what a decode server, or pairs of servers started for it, do under load.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_bench_serve_command(CLI::App& bench);

}  // namespace scd
