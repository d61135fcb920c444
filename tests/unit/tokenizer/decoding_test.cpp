// decode() and StreamingDetokenizer, which must agree on every sequence of ids.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/tokenizer/byte_tokenizer.h"
#include "common/tokenizer/streaming_detokenizer.h"
#include "common/tokenizer/unicode.h"
#include "tests/unit/tokenizer/tokenizer_files.h"

namespace scd {
namespace {

using ::scd::testing::ids_of;
using ::scd::testing::tokenizer_from;
using ::scd::testing::TokenizerSpec;
using ::testing::ElementsAre;

constexpr const char* kLlamaDecoder = R"({"type": "Sequence", "decoders": [
  {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

// Ids 0..: <unk>, words, then the tokens of all bytes; <s> is special.
TokenizerSpec llama_like() {
  TokenizerSpec spec;
  spec.vocab = {"<unk>", "▁Hello", "▁▁", "world", "é", "x"};
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte)
    spec.vocab.push_back(std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">");
  spec.merges = "[]";
  spec.settings = R"("unk_token": "<unk>", "byte_fallback": true)";
  spec.added_tokens = R"([{"id": 300, "content": "<s>", "special": true, "normalized": false}])";
  spec.decoder = kLlamaDecoder;
  return spec;
}

std::string decoded(const Tokenizer& tokenizer, const std::vector<std::string>& tokens, bool skip_special = false) {
  return tokenizer.decode(ids_of(tokenizer, tokens), skip_special);
}

std::vector<std::string> streamed(const Tokenizer& tokenizer, const std::vector<std::string>& tokens,
                                  DetokenizeOptions options = {}) {
  StreamingDetokenizer detokenizer(tokenizer, options);
  std::vector<std::string> parts;
  for (const TokenId id : ids_of(tokenizer, tokens)) parts.push_back(detokenizer.push(id));
  parts.push_back(detokenizer.flush());
  return parts;
}

// Random ids, unknown ones among them: the streamed parts are valid UTF-8 each and make up the decoded whole.
void expect_streaming_agrees(const Tokenizer& tokenizer, size_t vocab) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<TokenId> ids(random() % 40);
    for (TokenId& id : ids) id = static_cast<TokenId>(random() % (vocab + 10)) - 2;
    for (const bool skip_special : {false, true}) {
      StreamingDetokenizer detokenizer(tokenizer, {.skip_special = skip_special});
      std::string text;
      const auto take = [&](const std::string& part) {
        EXPECT_EQ(first_invalid_utf8(part), std::nullopt);
        text += part;
      };
      for (const TokenId id : ids) take(detokenizer.push(id));
      take(detokenizer.flush());
      ASSERT_EQ(text, tokenizer.decode(ids, skip_special));
    }
  }
}

TEST(Decoding, StripsTheSpaceThatEncodingPutThere) {
  const Tokenizer tokenizer = tokenizer_from(llama_like());
  EXPECT_EQ(decoded(tokenizer, {"▁Hello", "▁Hello", "world"}), "Hello Helloworld");
  EXPECT_EQ(decoded(tokenizer, {"▁▁", "x"}), " x") << "one space of two";
  EXPECT_EQ(decoded(tokenizer, {"<s>", "▁Hello"}), "<s> Hello");
  EXPECT_EQ(decoded(tokenizer, {"<s>", "▁Hello"}, true), "Hello");
  EXPECT_EQ(decoded(tokenizer, {}), "");
}

TEST(Decoding, JoinsByteTokensToCharacters) {
  const Tokenizer tokenizer = tokenizer_from(llama_like());
  EXPECT_EQ(decoded(tokenizer, {"<0xF0>", "<0x9F>", "<0xA6>", "<0x99>", "x"}), "🦙x");
  EXPECT_EQ(decoded(tokenizer, {"<0xF0>", "<0x9F>", "x"}), "\uFFFDx") << "an unfinished character";
  EXPECT_EQ(decoded(tokenizer, {"x", "<0xE6>"}), "x\uFFFD");
  EXPECT_EQ(decoded(tokenizer, {"<0x20>", "x"}), "x") << "a leading space is one however it is written";
}

TEST(Decoding, GivesNothingForIdsWithoutAToken) {
  const Tokenizer tokenizer = tokenizer_from(llama_like());
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{-5, 1, 290, 1 << 30}), "Hello");
}

TEST(Decoding, ReadsBytesWrittenAsCharacters) {
  TokenizerSpec spec;
  spec.vocab = {"Ġa", "Ã", "©", "日"};
  spec.merges = "[]";
  spec.settings = R"("unk_token": null)";
  spec.decoder = R"({"type": "ByteLevel"})";
  const Tokenizer tokenizer = tokenizer_from(spec);
  EXPECT_EQ(decoded(tokenizer, {"Ġa", "Ã", "©"}), " aé");
  EXPECT_EQ(decoded(tokenizer, {"Ã", "Ġa"}), "\uFFFD a");
  EXPECT_EQ(decoded(tokenizer, {"日"}), "日") << "no byte-level token: its own bytes";
}

TEST(Decoding, RemovesMarksByTheMetaspaceScheme) {
  TokenizerSpec spec;
  spec.decoder = R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})";
  EXPECT_EQ(decoded(tokenizer_from(spec), {"▁ab", "▁ab"}), "ab ab");
  spec.decoder = R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"})";
  EXPECT_EQ(decoded(tokenizer_from(spec), {"▁ab", "▁ab"}), " ab ab");
}

TEST(Decoding, StripsTokensBeforeFuseAndTheTextBehindIt) {
  TokenizerSpec spec;
  spec.decoder = R"({"type": "Strip", "content": "a", "start": 1, "stop": 0})";
  EXPECT_EQ(decoded(tokenizer_from(spec), {"ab", "a", "ab"}), "bb");
  spec.decoder = R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                     {"type": "Strip", "content": "a", "start": 2, "stop": 1}]})";
  EXPECT_EQ(decoded(tokenizer_from(spec), {"a", "a", "ab", "c", "a", "a"}), "abca");
}

TEST(Decoding, PutsSpacesBetweenTokensWithoutADecoder) {
  TokenizerSpec spec;
  spec.decoder = "null";
  EXPECT_EQ(decoded(tokenizer_from(spec), {"ab", "cd"}), "ab cd");
}

TEST(StreamingDetokenizer, NeverGivesHalfACharacter) {
  const Tokenizer tokenizer = tokenizer_from(llama_like());
  EXPECT_THAT(streamed(tokenizer, {"▁Hello", "<0xF0>", "<0x9F>", "<0xA6>", "<0x99>", "▁Hello"}),
              ElementsAre("Hello", "", "", "", "🦙", " Hello", ""));
  EXPECT_THAT(streamed(tokenizer, {"x", "<0xF0>", "<0x9F>"}), ElementsAre("x", "", "", "\uFFFD"));
}

TEST(StreamingDetokenizer, KeepsTheFirstSpaceWhereItContinuesAText) {
  const Tokenizer tokenizer = tokenizer_from(llama_like());
  EXPECT_THAT(streamed(tokenizer, {"▁Hello"}, {.continues_text = true}), ElementsAre(" Hello", ""));
  EXPECT_THAT(streamed(tokenizer, {"<s>", "▁Hello"}, {.skip_special = true}), ElementsAre("", "Hello", ""));
}

TEST(StreamingDetokenizer, StartsOverAfterFlush) {
  const Tokenizer tokenizer = tokenizer_from(llama_like());
  StreamingDetokenizer detokenizer(tokenizer);
  const TokenId hello = tokenizer.token_to_id("▁Hello").value();
  EXPECT_EQ(detokenizer.push(hello), "Hello");
  EXPECT_EQ(detokenizer.push(hello), " Hello");
  EXPECT_EQ(detokenizer.flush(), "");
  EXPECT_EQ(detokenizer.push(hello), "Hello");
}

TEST(StreamingDetokenizer, HoldsBackWhatMayYetBeStripped) {
  TokenizerSpec spec;
  spec.decoder = R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
                     {"type": "Strip", "content": "a", "start": 0, "stop": 1}]})";
  const Tokenizer tokenizer = tokenizer_from(spec);
  EXPECT_THAT(streamed(tokenizer, {"a", "a", "b", "a"}), ElementsAre("", "a", "ab", "", ""));
}

TEST(StreamingDetokenizer, AgreesWithDecodingTheWhole) {
  expect_streaming_agrees(tokenizer_from(llama_like()), 301);
  expect_streaming_agrees(tokenizer_from(make_byte_tokenizer_json(400)), 400);
  TokenizerSpec spec;
  for (
      const char* decoder :
      {"null", R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"})",
       R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 1, "stop": 2}]})"}) {
    spec.decoder = decoder;
    expect_streaming_agrees(tokenizer_from(spec), spec.vocab.size());
  }
}

TEST(ByteTokenizer, HasExactlyTheSizeAskedFor) {
  for (const int size : {kByteTokenizerMinVocab, 260, 285, 300, 1000, 20'000}) {
    const Tokenizer tokenizer = tokenizer_from(make_byte_tokenizer_json(size));
    EXPECT_EQ(tokenizer.vocab_size(), static_cast<size_t>(size));
    EXPECT_FALSE(tokenizer.id_to_token(size - 1).empty());
  }
  EXPECT_THROW(make_byte_tokenizer_json(kByteTokenizerMinVocab - 1), Error);
  EXPECT_THROW(make_byte_tokenizer_json(kByteTokenizerMaxVocab + 1), Error);
}

TEST(ByteTokenizer, RoundTripsEveryText) {
  const std::string text = "The \"quick\" \\ brown\tfox\r\n  \u0000é 日本 🦙";
  for (const int size : {kByteTokenizerMinVocab, 1000, 20'000}) {
    const Tokenizer tokenizer = tokenizer_from(make_byte_tokenizer_json(size));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text), true), text);
  }
  const Tokenizer tokenizer = tokenizer_from(make_byte_tokenizer_json(kByteTokenizerMinVocab));
  EXPECT_THAT(tokenizer.encode("A\n"), ElementsAre(1, 3 + 'A', 3 + '\n'));
  EXPECT_THAT(tokenizer.encode("</s>", {.add_special_tokens = false}), ElementsAre(2));
  EXPECT_EQ(tokenizer.encode("</s>", {.add_special_tokens = false, .parse_special = false}).size(), 4u);
}

}  // namespace
}  // namespace scd
