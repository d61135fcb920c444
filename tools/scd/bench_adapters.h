// `scd bench adapters`: what adapters beside the base's weights cost a decode step.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_bench_adapters_command(CLI::App& bench);

}  // namespace scd
