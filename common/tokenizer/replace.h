// Replace, which tokenizer.json offers as a normalizer and as a decoder.
#pragma once

#include <string>
#include <string_view>

#include "common/tokenizer/json_field.h"
#include "common/tokenizer/regex.h"

namespace scd {

// {"String": "..."} or {"Regex": "..."}.
Pattern read_pattern(const JsonField& field);

class Replace {
 public:
  explicit Replace(const JsonField& field);
  void apply(std::string& text) const;

 private:
  Pattern pattern_;
  std::string content_;
};

}  // namespace scd
