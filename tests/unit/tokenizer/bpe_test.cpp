#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/unit/tokenizer/tokenizer_files.h"

namespace scd {
namespace {

using ::scd::testing::failure_of;
using ::scd::testing::tokenizer_from;
using ::scd::testing::TokenizerSpec;
using ::scd::testing::tokens_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Bpe, MergesTheLowestRankFirstAndOfEqualsTheLeftmost) {
  TokenizerSpec spec;
  spec.vocab = {"a", "b", "c", "ab", "bc", "abc", "aa"};
  spec.settings = R"("unk_token": null)";
  spec.merges = R"([["b", "c"], ["a", "b"], ["ab", "c"], ["a", "a"]])";
  const Tokenizer tokenizer = tokenizer_from(spec);
  EXPECT_THAT(tokens_of(tokenizer, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(tokens_of(tokenizer, "aaa"), ElementsAre("aa", "a"));
  EXPECT_THAT(tokens_of(tokenizer, "aab"), ElementsAre("a", "ab"));
}

TEST(Bpe, ReadsMergesInEitherForm) {
  TokenizerSpec pairs;
  pairs.merges = R"([["▁", "a"], ["▁a", "b"], ["a", "b"], ["c", "d"]])";
  EXPECT_EQ(tokenizer_from(pairs).encode("ab▁abcd"), tokenizer_from(TokenizerSpec{}).encode("ab▁abcd"));
}

TEST(Bpe, TakesTheWholeWordWhereMergesAreIgnored) {
  TokenizerSpec spec;
  spec.vocab = {"a", "b", "c", "ab", "abc"};
  spec.merges = R"(["a b"])";
  spec.settings = R"("ignore_merges": false)";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "abc"), ElementsAre("ab", "c"));
  spec.settings = R"("ignore_merges": true)";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "abc"), ElementsAre("abc"));
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "abca"), ElementsAre("ab", "c", "a"));
}

TEST(Bpe, WritesUnknownCharactersAsItsSettingsSay) {
  TokenizerSpec spec;
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "axyb"), ElementsAre("a", "<unk>", "<unk>", "b"));
  spec.settings = R"("unk_token": "<unk>", "fuse_unk": true)";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "axybz"), ElementsAre("a", "<unk>", "b", "<unk>"));
  spec.settings = R"("unk_token": null)";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "axyb"), ElementsAre("ab")) << "dropped before merging";
}

TEST(Bpe, FallsBackToByteTokensWhereAllBytesHaveOne) {
  TokenizerSpec spec;
  spec.vocab = {"<unk>", "a", "<0xC3>", "<0xA9>", "<0x0A>"};
  spec.merges = "[]";
  spec.settings = R"("unk_token": "<unk>", "byte_fallback": true)";
  const Tokenizer tokenizer = tokenizer_from(spec);
  EXPECT_THAT(tokens_of(tokenizer, "aé\n"), ElementsAre("a", "<0xC3>", "<0xA9>", "<0x0A>"));
  EXPECT_THAT(tokens_of(tokenizer, "aè"), ElementsAre("a", "<unk>")) << "no token for 0xA8";
}

TEST(Bpe, GivesNothingForNothing) { EXPECT_THAT(tokenizer_from(TokenizerSpec{}).encode(""), IsEmpty()); }

TEST(Bpe, EncodesALongRunWithoutSpacesInReasonableTime) {
  TokenizerSpec spec;
  spec.vocab = {"a", "aa", "aaaa"};
  spec.merges = R"(["a a", "aa aa"])";
  spec.settings = R"("unk_token": null)";
  EXPECT_EQ(tokenizer_from(spec).encode(std::string(1'000'000, 'a')).size(), 250'000u);
}

TEST(Bpe, SaysWhichByteOfTheTextIsNotUtf8) {
  const Tokenizer tokenizer = tokenizer_from(TokenizerSpec{});
  try {
    tokenizer.encode("abc\xC3(");
    FAIL() << "must throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), HasSubstr("byte 3"));
  }
}

TEST(Bpe, EncodesFromManyThreadsAtOnce) {
  TokenizerSpec spec;
  spec.pre_tokenizer = R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated"})";
  const Tokenizer tokenizer = tokenizer_from(spec);
  const std::string text = "ab cd a b. 12 abab cdcd";
  const std::vector<TokenId> expected = tokenizer.encode(text);
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int round = 0; round < 200; ++round) {
          if (tokenizer.encode(text) != expected || tokenizer.decode(expected) != text) {
            wrong.fetch_add(1, std::memory_order_relaxed);
          }
        }
      });
    }
  }
  EXPECT_EQ(wrong.load(std::memory_order_relaxed), 0);
}

TEST(Bpe, RefusesOtherModelsAndSettingsByName) {
  TokenizerSpec spec;
  spec.settings = R"("dropout": 0.1)";
  EXPECT_THAT(failure_of(spec), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(failure_of(spec), HasSubstr("model.dropout: BPE dropout"));
  spec.settings = R"("dropout": 0.0)";
  EXPECT_EQ(failure_of(spec), "loaded");
  spec.settings = R"("end_of_word_suffix": "</w>")";
  EXPECT_THAT(failure_of(spec), HasSubstr("end_of_word_suffix"));
  spec.settings = R"("continuing_subword_prefix": "##")";
  EXPECT_THAT(failure_of(spec), HasSubstr("continuing_subword_prefix"));
  spec.settings = R"("sparkle": true)";
  EXPECT_THAT(failure_of(spec), HasSubstr("model.sparkle: this setting is not supported"));
  EXPECT_THAT(failure_of(R"({"model": {"type": "Unigram", "vocab": []}})"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(failure_of(R"({"model": {"type": "Unigram", "vocab": []}})"), HasSubstr("model 'Unigram'"));
}

}  // namespace
}  // namespace scd
