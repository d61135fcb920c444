#include "common/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <chrono>

#include <string>

namespace scd {
namespace {

std::string assembled(const std::string& bytes, size_t step) {
  Utf8Assembler assembler;
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += step) assembler.push(bytes.substr(at, step), out);
  assembler.flush(out);
  return out;
}

TEST(Utf8, NamesTheFirstInvalidByte) {
  EXPECT_EQ(first_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("plain ASCII of more than eight bytes, é, 日本, 🦙"), std::nullopt);
  EXPECT_EQ(first_invalid_utf8("ab\xFF"), 2u);
  EXPECT_EQ(first_invalid_utf8("longer than eight \x80"), 18u);
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0u) << "overlong";
  EXPECT_EQ(first_invalid_utf8("a\xE0\x80\x80"), 1u) << "overlong";
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0u) << "surrogate";
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0u) << "above U+10FFFF";
  EXPECT_EQ(first_invalid_utf8("é\xC3"), 2u) << "cut off";
}

TEST(Utf8, ReadsBackEveryCharacterItWrites) {
  for (char32_t character = 0; character < 0x110000; ++character) {
    if (character >= 0xD800 && character < 0xE000) continue;
    std::string text;
    append_utf8(text, character);
    ASSERT_EQ(first_invalid_utf8(text), std::nullopt) << static_cast<uint32_t>(character);
    size_t at = 0;
    ASSERT_TRUE(next_character(text, at) == character) << static_cast<uint32_t>(character);
    ASSERT_EQ(at, text.size());
    ASSERT_EQ(previous_start(text, text.size()), 0u);
  }
}

TEST(Utf8Assembler, GivesTheSameTextForPiecesOfAnySize) {
  const std::string text = "a é 日本 🦙 end";
  for (size_t step = 1; step <= 5; ++step) EXPECT_EQ(assembled(text, step), text);
}

TEST(Utf8Assembler, KeepsHalfACharacterUntilTheRestComes) {
  Utf8Assembler assembler;
  std::string out;
  assembler.push("\xF0\x9F", out);
  EXPECT_EQ(out, "");
  assembler.push("\xA6", out);
  EXPECT_EQ(out, "");
  assembler.push("\x99!", out);
  EXPECT_EQ(out, "🦙!");
}

TEST(Utf8Assembler, ReplacesEachMalformedPartOnce) {
  for (size_t step = 1; step <= 4; ++step) {
    EXPECT_EQ(assembled("a\xFF"
                        "b",
                        step),
              "a\uFFFDb");
    EXPECT_EQ(assembled("\xF0\x9F\xA6", step), "\uFFFD") << "one character that never ends";
    EXPECT_EQ(assembled("\xE6\x97x", step), "\uFFFDx");
    EXPECT_EQ(assembled("\xED\xA0\x80", step), "\uFFFD\uFFFD\uFFFD") << "no byte of a surrogate belongs together";
  }
}

TEST(Compose, JoinsMarksToWhatTheyStandOn) {
  EXPECT_EQ(compose("plain"), "plain");
  EXPECT_EQ(compose("cafe\u0301 e\u0301"), "caf\u00E9 \u00E9");
  EXPECT_EQ(compose("\u1112\u1161\u11AB"), "\uD55C") << "Hangul";
  EXPECT_EQ(compose("\u212B"), "\u00C5") << "a singleton";
  EXPECT_EQ(compose("a\u0323\u0307"), compose("a\u0307\u0323")) << "marks in canonical order";
  EXPECT_EQ(compose("\u0301a"), "\u0301a") << "a mark on nothing";
}

TEST(Compose, KeepsTheCharacterBelowTheTrailingJamo) {
  EXPECT_EQ(compose("\uAC00\u11A7x"), "\uAC00\u11A7x");
  EXPECT_EQ(compose("\u11A7\u11A7"), "\u11A7\u11A7");
  EXPECT_EQ(compose("\uAC00\u11A8"), "\uAC01");
}

// Quadratic time would take minutes here, and stop everybody whose text waits behind this one.
TEST(Compose, SortsALongRunOfMarksAtOnce) {
  std::string text = "a";
  constexpr int kMarks = 50000;
  for (int i = 0; i < kMarks; ++i) text += "\u0301";
  for (int i = 0; i < kMarks; ++i) text += "\u0316";
  std::string expected = "\u00E1";
  for (int i = 0; i < kMarks; ++i) expected += "\u0316";
  for (int i = 1; i < kMarks; ++i) expected += "\u0301";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(compose(text), expected);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(CharacterClasses, FollowUnicode) {
  EXPECT_TRUE(is_space(U' ') && is_space(U'\u3000') && is_space(U'\u0085'));
  EXPECT_FALSE(is_space(U'\u180E') || is_space(U'\u200B') || is_space(U'a'));
  EXPECT_TRUE(is_word(U'a') && is_word(U'_') && is_word(U'日') && is_word(U'\u0301') && is_word(U'٣'));
  EXPECT_FALSE(is_word(U'-') || is_word(U' ') || is_word(U'½') || is_word(U'🦙'));
}

}  // namespace
}  // namespace scd
