// scd tokenize: text to ids and back with a checkpoint's tokenizer, to compare with other software.
#pragma once

#include <CLI/CLI.hpp>

namespace scd {

void add_tokenize_command(CLI::App& app);

}  // namespace scd
