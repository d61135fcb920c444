// The decoder of a tokenizer.json, made to work token by token: decoding a whole sequence is pushing all of it.
//
// Three stages: rules that rewrite each token, one that may turn tokens to bytes (ByteLevel, ByteFallback), and what
// follows Fuse (Strip), which sees the text as one. Bytes become text by Utf8Assembler in between, for every decoder,
// so a malformed byte costs the characters around it nothing.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/json_field.h"
#include "common/tokenizer/unicode.h"

namespace scd {

class DecodeChain {
 public:
  // What one sequence keeps between tokens.
  struct State {
    bool is_first = true;       // no token yet
    size_t stripped_front = 0;  // characters taken off the start of the text; no more once one stays
    bool front_done = false;
    std::string held_back;  // characters Strip may yet take off the end
    Utf8Assembler assembler;
  };

  DecodeChain() = default;  // no decoder: tokens with a space between them
  // Reads ByteLevel, Metaspace, ByteFallback, Fuse, Strip, Replace and Sequence of these; anything else, and orders
  // that cannot be decoded token by token, are refused by name.
  explicit DecodeChain(const JsonField& field);

  void push(std::string_view token, State& state, std::string& out) const;
  void finish(State& state, std::string& out) const;

 private:
  enum class Bytes { kText, kByteLevel, kByteFallback };
  struct Strip {
    std::string content;  // one character
    size_t start = 0;
    size_t stop = 0;
  };
  using Rule = std::function<void(std::string& token, bool is_first)>;

  void add(const JsonField& field, int depth);
  void add_strip(const JsonField& field);
  void strip_and_append(std::string_view text, State& state, std::string& out) const;

  bool joins_with_space_ = true;
  std::vector<Rule> rules_;
  Bytes bytes_ = Bytes::kText;
  bool fused_ = false;
  std::optional<Strip> strip_;
};

}  // namespace scd
