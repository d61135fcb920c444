#include "common/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <cctype>
#include <utility>

#include "common/base/error.h"
#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

// PCRE2 counts U+180E as space and sees letters where Oniguruma sees marks, so the classes are spelt out, as the inside
// of a bracket; the complement too, because \S inside a bracket cannot be written as [^...].
struct CharacterSet {
  std::string_view members;
  std::string_view others;
};
constexpr CharacterSet kSpaces{
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})",
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})"};
constexpr CharacterSet kWordCharacters{R"(\p{L}\p{M}\p{Nd}\p{Pc})",
                                       R"(\p{Nl}\p{No}\p{Pd}\p{Ps}\p{Pe}\p{Pi}\p{Pf}\p{Po}\p{S}\p{Z}\p{C})"};
constexpr CharacterSet kHexDigits{"0-9a-fA-F", R"(\x{0}-\x{2f}\x{3a}-\x{40}\x{47}-\x{60}\x{67}-\x{10ffff})"};

[[noreturn]] void refuse(std::string_view expression, std::string_view what) {
  throw Error(ErrorCode::kUnimplemented,
              "regular expression '" + std::string(expression) + "': " + std::string(what) + " is not supported");
}

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Rewrites the escape at `at` (a backslash); returns how many bytes of the expression it took.
size_t rewrite_escape(std::string_view expression, size_t at, bool in_class, std::string& out) {
  const char kind = at + 1 < expression.size() ? expression[at + 1] : '\0';
  const auto put = [&](std::string_view set) {
    in_class ? out.append(set) : out.append("[").append(set).append("]");
    return size_t{2};
  };
  switch (kind) {
    case 's': return put(kSpaces.members);
    case 'S': return put(kSpaces.others);
    case 'w': return put(kWordCharacters.members);
    case 'W': return put(kWordCharacters.others);
    case 'h': return put(kHexDigits.members);
    case 'H': return put(kHexDigits.others);
    case 'u': {
      size_t digits = 0;
      while (digits < 4 && at + 2 + digits < expression.size() &&
             std::isxdigit(static_cast<unsigned char>(expression[at + 2 + digits])) != 0) {
        ++digits;
      }
      if (digits != 4) refuse(expression, "\\u without four hexadecimal digits");
      out.append("\\x{").append(expression.substr(at + 2, 4)).append("}");
      return 6;
    }
    default: {
      const size_t size = kind == '\0' ? 1 : 2;
      out.append(expression.substr(at, size));
      return size;
    }
  }
}

void refuse_multiline_flag(std::string_view expression, size_t at) {
  for (size_t i = at + 2; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == 'm') refuse(expression, "the flag (?m)");
    if (c != 'i' && c != 'x' && c != '-') return;
  }
}

}  // namespace

std::string to_pcre2_dialect(std::string_view expression) {
  std::string out;
  bool in_class = false;
  size_t at = 0;
  while (at < expression.size()) {
    const char c = expression[at];
    const std::string_view rest = expression.substr(at);
    if (c == '\\') {
      at += rewrite_escape(expression, at, in_class, out);
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      const size_t size = rest.starts_with("[^]") ? 3 : rest.starts_with("[^") || rest.starts_with("[]") ? 2 : 1;
      out.append(rest.substr(0, size));
      at += size;
      continue;
    }
    if (in_class && rest.starts_with("[:")) {
      const size_t end = rest.find(":]");
      if (end == std::string_view::npos) refuse(expression, "an unfinished POSIX class");
      out.append(rest.substr(0, end + 2));
      at += end + 2;
      continue;
    }
    if (in_class && c == '[') refuse(expression, "a character class inside another");
    if (in_class && rest.starts_with("&&")) refuse(expression, "a class intersection (&&)");
    if (in_class && c == ']') in_class = false;
    if (!in_class && rest.starts_with("(?")) refuse_multiline_flag(expression, at);
    out.push_back(c);
    ++at;
  }
  return out;
}

struct Pattern::Code {
  explicit Code(std::string_view expression) {
    const std::string translated = to_pcre2_dialect(expression);
    int error = 0;
    PCRE2_SIZE offset = 0;
    // Ruby's ^ and $ match at every line.
    handle = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                           PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr);
    if (handle == nullptr) refuse(expression, pcre2_message(error) + " (at " + std::to_string(offset) + "): it");
    // Without JIT (none for this CPU) the same matches are found, only slower.
    pcre2_jit_compile(handle, PCRE2_JIT_COMPLETE);
  }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(handle); }

  pcre2_code* handle = nullptr;
};

Pattern::Pattern(std::string text, std::unique_ptr<const Code> code) : text_(std::move(text)), code_(std::move(code)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern Pattern::literal(std::string text) {
  SCD_CHECK(!text.empty(), "a literal pattern must not be empty");
  return Pattern(std::move(text), nullptr);
}

Pattern Pattern::regex(std::string_view expression) {
  return Pattern(std::string(expression), std::make_unique<const Code>(expression));
}

bool Pattern::search(std::string_view text, size_t from, Stretch& match) const {
  if (code_ == nullptr) {
    const size_t at = text.find(text_, from);
    if (at == std::string_view::npos) return false;
    match = {at, at + text_.size(), true};
    return true;
  }
  static thread_local const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> found(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  SCD_CHECK(found != nullptr, "out of memory for PCRE2 match data");
  const auto run = [&](uint32_t options) {
    return pcre2_match(code_->handle, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK | options, found.get(), nullptr);
  };
  int matched = run(0);
  // The interpreter keeps its state on the heap, where there is more room than on the JIT's stack.
  if (matched == PCRE2_ERROR_JIT_STACKLIMIT) matched = run(PCRE2_NO_JIT);
  if (matched == PCRE2_ERROR_NOMATCH) return false;
  if (matched < 0) {
    throw Error(ErrorCode::kResourceExhausted, "regular expression '" + text_ + "' on " + std::to_string(text.size()) +
                                                   " bytes: " + pcre2_message(matched));
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(found.get());
  match = {offsets[0], offsets[1], true};
  return true;
}

void Pattern::find(std::string_view text, std::vector<Stretch>& stretches) const {
  if (text.empty()) return;
  size_t covered = 0;
  size_t from = 0;
  bool after_match = false;
  Stretch match;
  while (from <= text.size() && search(text, from, match)) {
    if (match.begin == match.end && after_match && match.begin == covered) {
      // An empty match right behind another says nothing new: step over one character.
      if (from == text.size()) break;
      next_character(text, from);
      continue;
    }
    if (match.begin > covered) stretches.push_back({covered, match.begin, false});
    stretches.push_back(match);
    covered = from = match.end;
    after_match = true;
  }
  if (covered < text.size()) stretches.push_back({covered, text.size(), false});
}

}  // namespace scd
