// Normalizers, pre-tokenizers and post-processors, each by a tokenizer.json that uses it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

constexpr const char* kLlamaNormalizer = R"({"type": "Sequence", "normalizers": [
  {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})";

std::vector<std::string> normalized(const std::string& normalizer, const std::string& text) {
  TokenizerSpec spec;
  spec.normalizer = normalizer;
  return tokens_of(tokenizer_from(spec), text);
}

// A model without merges between the characters used here: pieces show as where merges cannot cross.
std::vector<std::string> pre_tokenized(const std::string& pre_tokenizer, const std::string& text) {
  TokenizerSpec spec;
  spec.pre_tokenizer = pre_tokenizer;
  return tokens_of(tokenizer_from(spec), text);
}

std::string unimplemented(const std::string& field, const std::string& value) {
  TokenizerSpec spec;
  (field == "normalizer"      ? spec.normalizer
   : field == "pre_tokenizer" ? spec.pre_tokenizer
   : field == "decoder"       ? spec.decoder
                              : spec.post_processor) = value;
  const std::string failure = failure_of(spec);
  EXPECT_THAT(failure, HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(failure, HasSubstr(".json: " + field)) << "file and field";
  return failure;
}

TEST(Normalizer, PrependsAndReplaces) {
  EXPECT_THAT(normalized(kLlamaNormalizer, "ab ab"), ElementsAre("▁ab", "▁ab"));
  EXPECT_THAT(normalized(kLlamaNormalizer, ""), IsEmpty()) << "nothing is put before nothing";
  EXPECT_THAT(normalized(R"({"type": "Replace", "pattern": {"Regex": " +"}, "content": "."})", "a   b"),
              ElementsAre("a", ".", "b"));
}

TEST(Normalizer, Composes) {
  EXPECT_THAT(normalized(R"({"type": "NFC"})", "e\u0301"), ElementsAre("é"));
  EXPECT_THAT(normalized("null", "e\u0301"), ElementsAre("<unk>", "<unk>"));
}

TEST(Normalizer, RefusesOthersByName) {
  EXPECT_THAT(unimplemented("normalizer", R"({"type": "Lowercase"})"), HasSubstr("normalizer 'Lowercase'"));
  EXPECT_THAT(unimplemented("normalizer", R"({"type": "Sequence", "normalizers": [{"type": "StripAccents"}]})"),
              HasSubstr("normalizer.normalizers[0]: normalizer 'StripAccents'"));
}

TEST(PreTokenizer, SplitsAtPatterns) {
  EXPECT_THAT(pre_tokenized("null", "abab cd"), ElementsAre("ab", "ab", " ", "cd"));
  EXPECT_THAT(pre_tokenized(R"({"type": "Split", "pattern": {"String": "b"}, "behavior": "Isolated"})", "ab"),
              ElementsAre("a", "b"));
  EXPECT_THAT(pre_tokenized(R"({"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"})", "ab cd"),
              ElementsAre("ab", "cd"));
  EXPECT_THAT(
      pre_tokenized(R"({"type": "Split", "pattern": {"Regex": "[cd]+"}, "behavior": "Removed", "invert": true})",
                    "ab cd"),
      ElementsAre("cd"));
}

TEST(PreTokenizer, SeparatesDigits) {
  TokenizerSpec spec;
  spec.vocab = {"1", "2", "12", "a", "a1", "½"};
  spec.merges = R"(["1 2", "a 1"])";
  spec.settings = R"("unk_token": null)";
  spec.pre_tokenizer = R"({"type": "Digits", "individual_digits": false})";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "a12½"), ElementsAre("a", "12", "½"));
  spec.pre_tokenizer = R"({"type": "Digits", "individual_digits": true})";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "a12½"), ElementsAre("a", "1", "2", "½"));
}

TEST(PreTokenizer, MarksSpacesByItsScheme) {
  const auto metaspace = [](const std::string& scheme, const std::string& text) {
    return pre_tokenized(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": ")" + scheme + "\"}", text);
  };
  EXPECT_THAT(metaspace("always", "ab ab"), ElementsAre("▁ab", "▁ab"));
  EXPECT_THAT(metaspace("always", " ab"), ElementsAre("▁ab")) << "there is one already";
  EXPECT_THAT(metaspace("never", "ab ab"), ElementsAre("ab", "▁ab"));
  EXPECT_THAT(metaspace("first", "ab ab"), ElementsAre("▁ab", "▁ab"));
  EXPECT_THAT(pre_tokenized(R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false})", "ab"),
              ElementsAre("ab"));
}

TEST(PreTokenizer, PutsTheFirstMarkOnlyWhereTheTextStarts) {
  TokenizerSpec spec;
  spec.added_tokens = R"([{"id": 20, "content": "<s>", "special": true, "normalized": false}])";
  spec.pre_tokenizer = R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "ab<s>ab"), ElementsAre("▁ab", "<s>", "ab"));
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "<s>ab"), ElementsAre("<s>", "ab"));
}

TEST(PreTokenizer, WritesBytesAsCharacters) {
  TokenizerSpec spec;
  spec.vocab = {"a", "Ġ", "Ġa", "Ã", "©", "Ċ"};
  spec.merges = R"(["Ġ a"])";
  spec.settings = R"("unk_token": null)";
  spec.pre_tokenizer = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "a é\n a"), ElementsAre("a", "Ġ", "Ã", "©", "Ċ", "Ġa"));
  spec.pre_tokenizer = R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})";
  EXPECT_THAT(tokens_of(tokenizer_from(spec), "a"), ElementsAre("Ġa"));
}

TEST(PreTokenizer, RunsASequenceInOrder) {
  EXPECT_THAT(pre_tokenized(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"},
      {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}]})",
                            "ab cd"),
              ElementsAre("▁ab", "▁", "cd"));
}

TEST(PreTokenizer, RefusesOthersByName) {
  EXPECT_THAT(unimplemented("pre_tokenizer", R"({"type": "BertPreTokenizer"})"), HasSubstr("'BertPreTokenizer'"));
  EXPECT_THAT(
      unimplemented("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "[a&&b]"}, "behavior": "Isolated"})"),
      HasSubstr("pre_tokenizer.pattern.Regex: regular expression '[a&&b]'"));
  EXPECT_THAT(unimplemented("pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Odd"})"),
              HasSubstr("'Odd'"));
}

TEST(PostProcessor, WrapsTheTextOnlyWhenAsked) {
  TokenizerSpec spec;
  spec.added_tokens = R"([{"id": 20, "content": "<s>", "special": true, "normalized": false},
                          {"id": 21, "content": "</s>", "special": true, "normalized": false}])";
  const std::string start = R"({"type": "TemplateProcessing", "pair": [], "single": [
      {"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"B": {"id": "B", "ids": [20], "tokens": ["<s>"]}}})";
  const std::string end = R"({"type": "TemplateProcessing", "pair": [], "single": [
      {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "E", "type_id": 0}}],
      "special_tokens": {"E": {"id": "E", "ids": [21], "tokens": ["</s>"]}}})";
  spec.post_processor = R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, )" + start + ", " + end + "]}";
  const Tokenizer tokenizer = tokenizer_from(spec);
  EXPECT_THAT(tokens_of(tokenizer, "ab"), ElementsAre("<s>", "ab", "</s>"));
  EXPECT_THAT(tokens_of(tokenizer, ""), ElementsAre("<s>", "</s>"));
  EXPECT_THAT(tokens_of(tokenizer, "ab", {.add_special_tokens = false}), ElementsAre("ab"));
}

TEST(PostProcessor, RefusesOthersByName) {
  EXPECT_THAT(unimplemented("post_processor", R"({"type": "RobertaProcessing"})"), HasSubstr("'RobertaProcessing'"));
}

TEST(Decoder, RefusesOthersByName) {
  EXPECT_THAT(unimplemented("decoder", R"({"type": "WordPiece"})"), HasSubstr("decoder 'WordPiece'"));
  EXPECT_THAT(unimplemented("decoder", R"({"type": "Sequence", "decoders": [{"type": "Fuse"},
      {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}]})"),
              HasSubstr("'Replace' behind"));
}

}  // namespace
}  // namespace scd
