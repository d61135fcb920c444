#include "common/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"

namespace scd {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
constexpr char32_t kFirstThatMayCompose = 0x300;  // below it every character is its own NFC form

enum class Form { kWhole, kUnfinished, kMalformed };

// The longest sequence at the start of `bytes` that is, or may yet become, one character (Unicode table 3-7).
struct Sequence {
  Form form;
  size_t size;
};

Sequence first_sequence(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Form::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Form::kMalformed, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Form::kUnfinished, i};
    uint8_t low = 0x80;
    uint8_t high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte(i) < low || byte(i) > high) return {Form::kMalformed, i};
  }
  return {Form::kWhole, length};
}

// How many bytes at the start of the text are ASCII, in steps of 8 where it is long.
size_t ascii_prefix(std::string_view text) {
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & 0x8080808080808080ull) != 0) break;
  }
  while (at < text.size() && static_cast<uint8_t>(text[at]) < 0x80) ++at;
  return at;
}

utf8proc_category_t category(char32_t character) { return utf8proc_category(static_cast<utf8proc_int32_t>(character)); }

utf8proc_propval_t combining_class(char32_t character) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(character))->combining_class;
}

// The text with every run of combining marks in canonical order (Unicode 15, D109), which is equivalent to it: utf8proc
// sorts by insertion, which takes quadratic time where somebody sends a long run.
std::string with_sorted_marks(std::string_view text) {
  std::string sorted;
  std::vector<char32_t> marks;
  const auto flush = [&] {
    std::ranges::stable_sort(marks, {}, combining_class);
    for (const char32_t mark : marks) {
      std::array<utf8proc_uint8_t, 4> bytes{};
      const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(mark), bytes.data());
      sorted.append(reinterpret_cast<const char*>(bytes.data()), static_cast<size_t>(size));
    }
    marks.clear();
  };
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t character = next_character(text, at);
    if (combining_class(character) != 0) {
      marks.push_back(character);
      continue;
    }
    flush();
    sorted.append(text.substr(begin, at - begin));
  }
  flush();
  return sorted;
}

void append_composed(std::string_view text, std::string& out) {
  utf8proc_uint8_t* composed = nullptr;
  const std::string ordered = with_sorted_marks(text);
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(ordered.data()),
                                 static_cast<utf8proc_ssize_t>(ordered.size()), &composed,
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(composed, &std::free);
  if (size < 0) throw Error(ErrorCode::kInternal, std::string("NFC normalisation: ") + utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(composed), static_cast<size_t>(size));
}

// utf8proc (2.8) takes U+11A7, just below the trailing jamo, for one of them and drops it. It composes with nothing
// before it, so the text may be cut there.
void compose_stretch(std::string_view text, std::string& out) {
  static constexpr std::string_view kBelowTrailingJamo = "\xE1\x86\xA7";
  while (!text.empty()) {
    const size_t end = std::min(text.find(kBelowTrailingJamo, 1), text.size());
    append_composed(text.substr(0, end), out);
    text.remove_prefix(end);
  }
}

}  // namespace

std::optional<size_t> first_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (true) {
    at += ascii_prefix(text.substr(at));
    if (at == text.size()) return std::nullopt;
    const Sequence sequence = first_sequence(text.substr(at));
    if (sequence.form != Form::kWhole) return at;
    at += sequence.size;
  }
}

char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[at + i])); };
  const char32_t lead = byte(0);
  char32_t character = lead;
  size_t size = 1;
  if (lead >= 0xF0) {
    character = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    size = 4;
  } else if (lead >= 0xE0) {
    character = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    size = 3;
  } else if (lead >= 0x80) {
    character = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    size = 2;
  }
  at += size;
  return character;
}

size_t previous_start(std::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && (static_cast<uint8_t>(text[start]) & 0xC0) == 0x80) --start;
  return start;
}

void append_utf8(std::string& text, char32_t character) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (character < 0x80) {
    put(character);
  } else if (character < 0x800) {
    put(0xC0 | character >> 6);
    put(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    put(0xE0 | character >> 12);
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  } else {
    put(0xF0 | character >> 18);
    put(0x80 | (character >> 12 & 0x3F));
    put(0x80 | (character >> 6 & 0x3F));
    put(0x80 | (character & 0x3F));
  }
}

bool is_space(char32_t character) {
  if (character < 0x80) return character == ' ' || (character >= 0x09 && character <= 0x0D);
  return character == 0x85 || character == 0xA0 || character == 0x1680 ||
         (character >= 0x2000 && character <= 0x200A) || character == 0x2028 || character == 0x2029 ||
         character == 0x202F || character == 0x205F || character == 0x3000;
}

bool is_word(char32_t character) {
  if (character == 0x200C || character == 0x200D) return true;  // Join_Control
  if (character >= 0x24B6 && character <= 0x24E9) return true;  // circled letters: Other_Alphabetic
  switch (category(character)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

std::string compose(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  // An ASCII character never joins what stands before it, so the text may be cut there: only the stretches that hold a
  // character which may change take the slow way.
  size_t copied = 0;
  size_t cut = 0;
  size_t at = 0;
  while (at < text.size()) {
    const size_t start = at;
    const char32_t character = next_character(text, at);
    if (character < 0x80) cut = start;
    if (character < kFirstThatMayCompose) continue;
    while (at < text.size() && static_cast<uint8_t>(text[at]) >= 0x80) ++at;
    out.append(text.substr(copied, cut - copied));
    compose_stretch(text.substr(cut, at - cut), out);
    copied = cut = at;
  }
  out.append(text.substr(copied));
  return out;
}

void Utf8Assembler::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_ + std::string(bytes);
    bytes = joined;
    pending_.clear();
  }
  while (!bytes.empty()) {
    const Sequence sequence = first_sequence(bytes);
    if (sequence.form == Form::kUnfinished) {
      pending_ = bytes;
      return;
    }
    out.append(sequence.form == Form::kWhole ? bytes.substr(0, sequence.size) : kReplacement);
    bytes.remove_prefix(sequence.size);
  }
}

void Utf8Assembler::flush(std::string& out) {
  if (!pending_.empty()) out.append(kReplacement);
  pending_.clear();
}

}  // namespace scd
