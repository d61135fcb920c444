// A text file as token ids, whole: what prompts are cut from and prose is judged on.
#pragma once

#include <filesystem>
#include <vector>

#include "common/base/token.h"
#include "common/tokenizer/tokenizer.h"

namespace scd {

// Without what a post-processor adds. Throws Error NOT_FOUND for a file that cannot be read.
std::vector<TokenId> tokens_of_file(const Tokenizer& tokenizer, const std::filesystem::path& file);

}  // namespace scd
