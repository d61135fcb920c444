// The post-processor of a tokenizer.json: what stands before and behind the ids of a single text.
#pragma once

#include <cstddef>
#include <vector>

#include "common/base/token.h"
#include "common/tokenizer/json_field.h"

namespace scd {

struct AffixIds {
  std::vector<TokenId> before;
  std::vector<TokenId> behind;
};

// Reads TemplateProcessing (its form for a single text), ByteLevel (which moves offsets only) and Sequence of these;
// anything else is refused by name. Ids must be below vocab_size.
AffixIds read_post_processor(const JsonField& field, size_t vocab_size);

}  // namespace scd
