// `scd logits`: the logits of every position of a list of ids, for comparing this engine with another.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_logits_command(CLI::App& app);

}  // namespace scd
