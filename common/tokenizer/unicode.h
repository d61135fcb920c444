// UTF-8 in and out, and the few character classes tokenizers ask about (Unicode 15, by utf8proc).
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace scd {

// Where the text stops being valid UTF-8 (overlong forms and surrogates are invalid); nothing where all of it is valid.
std::optional<size_t> first_invalid_utf8(std::string_view text);

// The character at `at`, which moves behind it. The text must be valid UTF-8 and `at` the start of a character.
char32_t next_character(std::string_view text, size_t& at);
// Where the character that ends at `end` (> 0) starts.
size_t previous_start(std::string_view text, size_t end);
void append_utf8(std::string& text, char32_t character);

bool is_space(char32_t character);  // property White_Space
bool is_word(char32_t character);   // \w of Unicode's UTS 18

// Canonical composition (NFC) of valid UTF-8.
std::string compose(std::string_view text);

// Makes valid UTF-8 of bytes that arrive in pieces of any size: whole characters pass, each maximal part of a malformed
// one becomes U+FFFD, and the start of a character is kept until the rest of it comes.
class Utf8Assembler {
 public:
  void push(std::string_view bytes, std::string& out);
  void flush(std::string& out);

 private:
  std::string pending_;  // at most 3 bytes
};

}  // namespace scd
