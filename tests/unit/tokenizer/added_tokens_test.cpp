#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/tokenizer/token_matcher.h"
#include "tests/unit/tokenizer/tokenizer_files.h"

namespace scd {
namespace {

using ::scd::testing::tokenizer_from;
using ::scd::testing::TokenizerSpec;
using ::scd::testing::tokens_of;
using ::testing::ElementsAre;

Tokenizer with_added(const std::string& added_tokens) {
  TokenizerSpec spec;
  spec.added_tokens = added_tokens;
  return tokenizer_from(spec);
}

TEST(TokenMatcher, FindsTheLeftmostAndOfThoseTheLongest) {
  TokenMatcher matcher;
  EXPECT_FALSE(matcher.find("abc", 0).has_value());
  matcher.add("ab", 0);
  matcher.add("abcd", 1);
  matcher.add("bc", 2);
  matcher.add("", 3);
  const auto longest = matcher.find("xabcd", 0);
  EXPECT_EQ(longest->begin, 1u);
  EXPECT_EQ(longest->end, 5u);
  EXPECT_EQ(longest->index, 1u);
  EXPECT_EQ(matcher.find("abce", 0)->index, 0u) << "the longer one does not fit";
  EXPECT_EQ(matcher.find("abce", 1)->index, 2u);
  EXPECT_FALSE(matcher.find("xyz", 0).has_value());
}

TEST(AddedTokens, MayBeTheLongestTokens) {
  EXPECT_EQ(with_added("[]").longest_token_bytes(), std::string_view("<unk>").size());
  EXPECT_EQ(with_added(R"([{"id": 20, "content": "<|end|>", "special": true}])").longest_token_bytes(), 7u);
}

TEST(AddedTokens, AreRecognisedInTheText) {
  const Tokenizer tokenizer = with_added(R"([{"id": 20, "content": "<s>", "special": true, "normalized": false},
                                             {"id": 21, "content": "<s>>", "special": false, "normalized": false}])");
  EXPECT_THAT(tokens_of(tokenizer, "ab<s>ab<s>>"), ElementsAre("ab", "<s>", "ab", "<s>>"));
  EXPECT_EQ(tokenizer.vocab_size(), 22u);
  EXPECT_EQ(tokenizer.token_to_id("<s>"), 20);
  EXPECT_EQ(tokenizer.token_to_id("<none>"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(20));
  EXPECT_FALSE(tokenizer.is_special(21) || tokenizer.is_special(1) || tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.id_to_token(17), "") << "a hole between vocabulary and added tokens";
  EXPECT_EQ(tokenizer.id_to_token(-1), "");
  EXPECT_EQ(tokenizer.id_to_token(1 << 30), "");
}

TEST(AddedTokens, SpecialOnesAreOrdinaryTextWhenTheyMayNotBeParsed) {
  const Tokenizer tokenizer = with_added(R"([{"id": 20, "content": ".a.", "special": true, "normalized": false},
                                             {"id": 21, "content": ".b.", "special": false, "normalized": false}])");
  EXPECT_THAT(tokens_of(tokenizer, ".a..b."), ElementsAre(".a.", ".b."));
  EXPECT_THAT(tokens_of(tokenizer, ".a..b.", {.parse_special = false}), ElementsAre(".", "a", ".", ".b."));
}

TEST(AddedTokens, TakeTheWhiteSpaceAroundThemAsFlagged) {
  const Tokenizer left = with_added(R"([{"id": 20, "content": "<x>", "lstrip": true, "normalized": false}])");
  EXPECT_THAT(tokens_of(left, "a \u3000<x> a"), ElementsAre("a", "<x>", " ", "a"));
  const Tokenizer right = with_added(R"([{"id": 20, "content": "<x>", "rstrip": true, "normalized": false}])");
  EXPECT_THAT(tokens_of(right, "a <x> \n a"), ElementsAre("a", " ", "<x>", "a"));
  const Tokenizer both =
      with_added(R"([{"id": 20, "content": "<x>", "lstrip": true, "rstrip": true, "normalized": false}])");
  EXPECT_THAT(tokens_of(both, " <x>  <x> "), ElementsAre("<x>", "<x>"));
}

TEST(AddedTokens, MayHaveToStandAlone) {
  const Tokenizer tokenizer = with_added(R"([{"id": 20, "content": "c1", "single_word": true, "normalized": false}])");
  EXPECT_THAT(tokens_of(tokenizer, "a c1."), ElementsAre("a", " ", "c1", "."));
  EXPECT_THAT(tokens_of(tokenizer, "c1"), ElementsAre("c1"));
  EXPECT_THAT(tokens_of(tokenizer, "ac1"), ElementsAre("a", "c", "1"));
  EXPECT_THAT(tokens_of(tokenizer, "c1é"), ElementsAre("c", "1", "é"));
}

TEST(AddedTokens, AreLookedForInNormalizedTextWhereTheySaySo) {
  TokenizerSpec spec;
  spec.normalizer = R"({"type": "Replace", "pattern": {"String": "d"}, "content": "c"})";
  spec.added_tokens = R"([{"id": 20, "content": "ddd", "normalized": true}])";
  EXPECT_EQ(tokenizer_from(spec).encode("ccc"), std::vector<TokenId>{20});
  EXPECT_EQ(tokenizer_from(spec).encode("cdc"), std::vector<TokenId>{20});
  spec.added_tokens = R"([{"id": 20, "content": "ddd", "normalized": false}])";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "ccc"), ElementsAre("c", "c", "c"));
  EXPECT_EQ(tokenizer_from(spec).encode("ddd"), std::vector<TokenId>{20});
}

}  // namespace
}  // namespace scd
