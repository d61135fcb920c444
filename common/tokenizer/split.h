// What becomes of the matches when text is cut at a pattern (SplitDelimiterBehavior of Hugging Face tokenizers).
#pragma once

#include <vector>

#include "common/tokenizer/json_field.h"
#include "common/tokenizer/regex.h"

namespace scd {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

SplitBehavior read_split_behavior(const JsonField& field);

// Rewrites stretches in place to the pieces that remain, in order.
void merge_stretches(SplitBehavior behavior, std::vector<Stretch>& stretches);

}  // namespace scd
