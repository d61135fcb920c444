// `scd make-model`: a random checkpoint of a chosen shape, for tests and benchmarks.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_make_model_command(CLI::App& app);

}  // namespace scd
