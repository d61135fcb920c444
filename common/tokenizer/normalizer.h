// The normalizer of a tokenizer.json: rewrites the text between added tokens before it is cut into words.
#pragma once

#include <memory>
#include <string>

#include "common/tokenizer/json_field.h"

namespace scd {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(std::string& text) const = 0;  // valid UTF-8 in and out
};

// Reads Prepend, Replace, NFC and Sequence of these; anything else is refused by name.
std::unique_ptr<const Normalizer> read_normalizer(const JsonField& field);

}  // namespace scd
