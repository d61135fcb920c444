// Tokens that are recognised in the text before any model sees it: special ones ("<|im_end|>") and others.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/token.h"
#include "common/tokenizer/json_field.h"
#include "common/tokenizer/normalizer.h"
#include "common/tokenizer/token_matcher.h"
#include "common/tokenizer/vocabulary.h"

namespace scd {

struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = true;    // looked for in normalized text, as its own normalized form
  bool special = false;
};

// A part of a text: an added token, or text for the model.
struct Segment {
  std::string_view text;
  std::optional<TokenId> token;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `model`: ids must agree with it. `normalizer` may be null. Throws Error kInvalidArgument naming the field.
  AddedTokens(const JsonField& field, const Vocabulary& model, const Normalizer* normalizer);

  // First pass, over text as it came: tokens with normalized = false.
  std::vector<Segment> split_raw(std::string_view text, bool parse_special) const;
  // Second pass, over normalized text: tokens with normalized = true.
  std::vector<Segment> split_normalized(std::string_view text, bool parse_special) const;

  const AddedToken* find(TokenId id) const;  // null where there is none
  const AddedToken* find(std::string_view content) const;
  size_t size() const { return size_; }  // largest id + 1; 0 without tokens

 private:
  std::vector<Segment> split(const TokenMatcher& matcher, std::string_view text, bool parse_special) const;
  bool accepts(const AddedToken& token, std::string_view text, const TokenMatcher::Match& match) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<TokenId, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  TokenMatcher raw_;
  TokenMatcher normalized_;
  size_t size_ = 0;
};

}  // namespace scd
