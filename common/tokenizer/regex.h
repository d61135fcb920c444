// What a tokenizer searches for: a literal string, or a regular expression in the dialect of tokenizer.json
// (Oniguruma, Ruby syntax), matched by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace scd {

// A stretch of the searched text; stretches cover the text without gaps.
struct Stretch {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

// The same expression in PCRE2's dialect: \s, \w, \h and \u mean different characters there. Throws Error
// kUnimplemented for nested character classes, class intersections and the (?m) flag.
std::string to_pcre2_dialect(std::string_view expression);

// Immutable; find() may be called from many threads at once.
class Pattern {
 public:
  static Pattern literal(std::string text);
  // Throws Error kUnimplemented with PCRE2's words where the expression is not understood.
  static Pattern regex(std::string_view expression);

  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  // Appends the stretches of `text` (valid UTF-8), matches and what lies between them. Throws Error kResourceExhausted
  // where the expression backtracks beyond PCRE2's limits.
  void find(std::string_view text, std::vector<Stretch>& stretches) const;

 private:
  struct Code;
  Pattern(std::string text, std::unique_ptr<const Code> code);
  // The next match at or behind `from`; false where there is none.
  bool search(std::string_view text, size_t from, Stretch& match) const;

  std::string text_;                  // the literal, or the expression as written
  std::unique_ptr<const Code> code_;  // null for a literal
};

}  // namespace scd
