// Turns ids into text as they are generated, without ever cutting a character in two.
#pragma once

#include <memory>
#include <string>

#include "common/base/token.h"
#include "common/tokenizer/tokenizer.h"

namespace scd {

struct DetokenizeOptions {
  bool skip_special = false;
  // The ids continue earlier text (a prompt): the space that decoding strips from the start of a text is kept.
  bool continues_text = false;
};

// One per sequence; not thread-safe. The concatenation of all push() results and flush() is what
// Tokenizer::decode() gives for the same ids.
class StreamingDetokenizer {
 public:
  // The tokenizer must outlive the detokenizer.
  explicit StreamingDetokenizer(const Tokenizer& tokenizer, DetokenizeOptions options = {});
  StreamingDetokenizer(StreamingDetokenizer&&) noexcept;
  StreamingDetokenizer& operator=(StreamingDetokenizer&&) noexcept;
  ~StreamingDetokenizer();

  // The text that became complete with this id: valid UTF-8, often empty in the middle of a character.
  std::string push(TokenId id);
  // What is left at the end; bytes of an unfinished character become U+FFFD. Starts over as new afterwards.
  std::string flush();

 private:
  struct State;
  const Tokenizer* tokenizer_;
  DetokenizeOptions options_;
  std::unique_ptr<State> state_;
};

}  // namespace scd
