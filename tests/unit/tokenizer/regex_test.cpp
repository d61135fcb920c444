#include "common/tokenizer/regex.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/tokenizer/split.h"

namespace scd {
namespace {

// Matches in brackets, the rest as it is: "[ab]c".
std::string found(const Pattern& pattern, const std::string& text) {
  std::vector<Stretch> stretches;
  pattern.find(text, stretches);
  std::string out;
  for (const Stretch& stretch : stretches) {
    const std::string part = text.substr(stretch.begin, stretch.end - stretch.begin);
    out += stretch.is_match ? "[" + part + "]" : part;
  }
  return out;
}

std::string found(const std::string& expression, const std::string& text) {
  return found(Pattern::regex(expression), text);
}

// Pieces with a bar between them.
std::string split(SplitBehavior behavior, const std::string& text) {
  std::vector<Stretch> stretches;
  Pattern::literal("-").find(text, stretches);
  merge_stretches(behavior, stretches);
  std::string out;
  for (const Stretch& stretch : stretches) {
    out += (out.empty() ? "" : "|") + text.substr(stretch.begin, stretch.end - stretch.begin);
  }
  return out;
}

ErrorCode refusal(const std::string& expression) {
  try {
    Pattern::regex(expression);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(expression), std::string::npos) << error.what();
    return error.code();
  }
  return ErrorCode::kUnknown;
}

TEST(Pattern, FindsLiteralsAsTheyAre) {
  EXPECT_EQ(found(Pattern::literal("a.b"), "a.baxb"), "[a.b]axb");
  EXPECT_EQ(found(Pattern::literal("aa"), "aaa"), "[aa]a");
}

TEST(Pattern, CoversTheWholeText) {
  EXPECT_EQ(found(R"(\d+)", "ab12c3"), "ab[12]c[3]");
  EXPECT_EQ(found(R"(\d+)", ""), "");
  EXPECT_EQ(found(R"(x)", "日本"), "日本");
}

TEST(Pattern, TakesEmptyMatchesAsCutsAndMovesOn) {
  EXPECT_EQ(found("(?=b)", "abab"), "a[]ba[]b");
  EXPECT_EQ(found("a*", "日aa"), "[]日[aa]") << "none right behind another match";
}

TEST(Pattern, KnowsLookaroundPossessiveAndUnicodeForms) {
  EXPECT_EQ(found(R"(\s+(?!\S))", "a   b"), "a[  ] b");
  EXPECT_EQ(found("(?<=a)b", "abb"), "a[b]b");
  EXPECT_EQ(found(R"(\p{L}++)", "né1"), "[né]1");
  EXPECT_EQ(found("(?i:'S)", "it's'S"), "it['s]['S]");
  EXPECT_EQ(found("[一-龥]+", "ab日本"), "ab[日本]");
}

TEST(Pattern, ReadsClassesAsOnigurumaDoes) {
  EXPECT_EQ(found(R"(\s)", "a\u180E\u3000"), "a\u180E[\u3000]");
  EXPECT_EQ(found(R"([^\s]+)", "a\u180E b"), "[a\u180E] [b]");
  EXPECT_EQ(found(R"([\s\S]+)", "a\u180E b"), "[a\u180E b]");
  EXPECT_EQ(found(R"(\w+)", "e\u0301_½"), "[e\u0301_]½");
  EXPECT_EQ(found(R"([\W]+)", "e\u0301½"), "e\u0301[½]");
  EXPECT_EQ(found(R"(\h+)", "fg9"), "[f]g[9]") << "a hexadecimal digit, not a blank";
  EXPECT_EQ(found(R"([\u0061-\u0062]+)", "abc"), "[ab]c");
  EXPECT_EQ(found("^b", "a\nb"), "a\n[b]") << "^ matches at every line";
  EXPECT_EQ(found(R"([]a]+[\]])", "a]]b"), "[a]]]b");
}

TEST(Pattern, RefusesWhatPcre2WouldReadDifferently) {
  EXPECT_EQ(refusal("[a&&b]"), ErrorCode::kUnimplemented);
  EXPECT_EQ(refusal("[a[bc]]"), ErrorCode::kUnimplemented);
  EXPECT_EQ(refusal("(?m)a.b"), ErrorCode::kUnimplemented);
  EXPECT_EQ(refusal("(?im:a.b)"), ErrorCode::kUnimplemented);
  EXPECT_EQ(refusal(R"(\p{Klingon})"), ErrorCode::kUnimplemented);
  EXPECT_EQ(refusal("(a"), ErrorCode::kUnimplemented);
}

TEST(Pattern, MatchesLongRunsWithGroupsThatBacktrack) {
  const std::string run(1'000'000, 'a');
  EXPECT_EQ(found(R"((?:a|b)+)", run).size(), run.size() + 2);
  EXPECT_EQ(found(R"(\s*[\r\n]+|\s+)", std::string(1'000'000, ' ')).size(), run.size() + 2);
}

TEST(Pattern, GivesUpOnExponentialBacktrackingWithAnError) {
  const Pattern pattern = Pattern::regex("(a+)+$");
  std::vector<Stretch> stretches;
  try {
    pattern.find(std::string(40, 'a') + "!", stretches);
    FAIL() << "must not finish";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
  }
}

TEST(Split, DoesWithMatchesWhatTheBehaviorSays) {
  EXPECT_EQ(split(SplitBehavior::kIsolated, "a--b-"), "a|-|-|b|-");
  EXPECT_EQ(split(SplitBehavior::kRemoved, "a--b-"), "a|b");
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious, "a--b-"), "a-|-|b-");
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext, "a--b-"), "a|-|-b|-");
  EXPECT_EQ(split(SplitBehavior::kContiguous, "a--b-"), "a|--|b|-");
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious, "-a"), "-|a");
}

}  // namespace
}  // namespace scd
