// A broken tokenizer.json gives an error that names the field, whatever is broken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/tokenizer/byte_tokenizer.h"
#include "tests/unit/tokenizer/tokenizer_files.h"

namespace scd {
namespace {

using ::scd::testing::failure_of;
using ::scd::testing::json_text;
using ::scd::testing::TokenizerSpec;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

auto broken(const std::string& what) {
  return AllOf(StartsWith("INVALID_ARGUMENT: "), HasSubstr(".json"), HasSubstr(what));
}

TEST(BrokenTokenizerFile, IsMissing) {
  try {
    Tokenizer::from_file("/nonexistent/tokenizer.json");
    FAIL() << "must throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("/nonexistent/tokenizer.json"));
  }
  EXPECT_THROW(Tokenizer::from_file(std::filesystem::temp_directory_path()), Error) << "a directory";
}

TEST(BrokenTokenizerFile, IsNotJson) {
  EXPECT_THAT(failure_of(""), broken("not JSON"));
  EXPECT_THAT(failure_of("{\"model\": "), broken("not JSON at byte"));
  EXPECT_THAT(failure_of("{\"model\": \"\xFF\"}"), broken("not JSON"));
  EXPECT_THAT(failure_of("[]"), broken("the file must be an object"));
  EXPECT_THAT(failure_of("{}"), broken("model is missing"));
}

TEST(BrokenTokenizerFile, HasABrokenVocabulary) {
  EXPECT_THAT(failure_of(R"({"model": {"type": "BPE", "merges": []}})"), broken("model.vocab is missing"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": {}, "merges": []}})"), broken("model.vocab must not be empty"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": ["a"], "merges": []}})"), broken("model.vocab must be an object"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": {"a": -1}, "merges": []}})"),
              broken("model.vocab.a must be an integer"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": {"a": 1e3}, "merges": []}})"), broken("model.vocab.a"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": {"a": 4000000000}, "merges": []}})"), broken("model.vocab.a"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": {"a": 18446744073709551615}, "merges": []}})"),
              broken("model.vocab.a"));
  EXPECT_THAT(failure_of(R"({"model": {"vocab": {"a": 0, "b": 0}, "merges": []}})"),
              broken("model.vocab.b: id 0 of 'b' already belongs to 'a'"));
  TokenizerSpec spec;
  spec.settings = R"("unk_token": "<none>")";
  EXPECT_THAT(failure_of(spec), broken("model.unk_token '<none>' is not in model.vocab"));
}

TEST(BrokenTokenizerFile, HasABrokenMerge) {
  TokenizerSpec spec;
  for (const auto& [merges, what] : std::vector<std::pair<std::string, std::string>>{
           {R"("a b")", "model.merges must be an array"},
           {R"(["a b", "ab"])", "model.merges[1] must be two tokens"},
           {R"(["a b c"])", "model.merges[0] must be two tokens"},
           {R"([["a"]])", "model.merges[0] must have two elements"},
           {R"([["a", 1]])", "model.merges[0][1] must be a string"},
           {R"([7])", "model.merges[0] must be a string"},
           {R"(["a zz"])", "model.merges[0] needs 'zz', which is not in model.vocab"},
           {R"(["b a"])", "model.merges[0] needs 'ba', which is not in model.vocab"}}) {
    spec.merges = merges;
    EXPECT_THAT(failure_of(spec), broken(what));
  }
}

TEST(BrokenTokenizerFile, HasABrokenAddedToken) {
  TokenizerSpec spec;
  for (const auto& [added, what] : std::vector<std::pair<std::string, std::string>>{
           {R"({})", "added_tokens must be an array"},
           {R"([{"content": "x"}])", "added_tokens[0].id is missing"},
           {R"([{"id": 20}])", "added_tokens[0].content is missing"},
           {R"([{"id": 20, "content": "x", "special": 1}])", "added_tokens[0].special must be true or false"},
           {R"([{"id": 20, "content": "ab"}])", "the id 20, model.vocab gives it 10"},
           {R"([{"id": 3, "content": "x"}])", "which model.vocab gives to 'c'"},
           {R"([{"id": 20, "content": "x"}, {"id": 20, "content": "y"}])", "added_tokens[1] repeats the id 20"},
           {R"([{"id": 20, "content": "x"}, {"id": 21, "content": "x"}])", "added_tokens[1] repeats the content"},
           {R"([{"id": 2000000000, "content": "x"}])", "added_tokens[0].id must be an integer"}}) {
    spec.added_tokens = added;
    EXPECT_THAT(failure_of(spec), broken(what));
  }
}

TEST(BrokenTokenizerFile, HasABrokenStage) {
  const auto with = [](std::string TokenizerSpec::*field, const std::string& value) {
    TokenizerSpec spec;
    spec.*field = value;
    return failure_of(spec);
  };
  EXPECT_THAT(with(&TokenizerSpec::normalizer, "7"), broken("normalizer must be an object"));
  EXPECT_THAT(with(&TokenizerSpec::normalizer, "{}"), broken("normalizer.type is missing"));
  EXPECT_THAT(with(&TokenizerSpec::normalizer, R"({"type": "Replace", "pattern": {"String": ""}, "content": "a"})"),
              broken("normalizer.pattern.String must not be empty"));
  EXPECT_THAT(with(&TokenizerSpec::pre_tokenizer, R"({"type": "Split", "behavior": "Isolated"})"),
              broken("pre_tokenizer.pattern is missing"));
  EXPECT_THAT(with(&TokenizerSpec::pre_tokenizer, R"({"type": "Metaspace", "replacement": "ab"})"),
              broken("pre_tokenizer.replacement must be one character"));
  EXPECT_THAT(with(&TokenizerSpec::pre_tokenizer,
                   R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "sometimes"})"),
              broken("prepend_scheme must be always, first or never"));
  EXPECT_THAT(
      with(&TokenizerSpec::pre_tokenizer,
           R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "add_prefix_space": false})"),
      broken("prepend_scheme contradicts add_prefix_space"));
  EXPECT_THAT(with(&TokenizerSpec::decoder, R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})"),
              broken("decoder.start must be an integer"));
  const std::string head = R"({"type": "TemplateProcessing", "pair": [], "single": )";
  const std::string ids = R"(, "special_tokens": {"B": {"id": "B", "ids": [99], "tokens": ["B"]}}})";
  EXPECT_THAT(with(&TokenizerSpec::post_processor, head + "[]" + ids), broken("single must contain the sequence 'A'"));
  EXPECT_THAT(with(&TokenizerSpec::post_processor, head + R"([{"Sequence": {"id": "B"}}])" + ids),
              broken("must be 'A'"));
  EXPECT_THAT(with(&TokenizerSpec::post_processor, head + R"([{"SpecialToken": {"id": "B"}}])" + ids),
              broken("special_tokens.B.ids[0] must be an integer from 0 to 14"));
  EXPECT_THAT(with(&TokenizerSpec::post_processor, head + R"([{"SpecialToken": {"id": "C"}}])" + ids),
              broken("special_tokens.C is missing"));
}

TEST(BrokenTokenizerFile, NestsTooDeep) {
  std::string normalizer = R"({"type": "NFC"})";
  for (int depth = 0; depth < 5000; ++depth)
    normalizer = R"({"type": "Sequence", "normalizers": [)" + normalizer + "]}";
  TokenizerSpec spec;
  spec.normalizer = normalizer;
  EXPECT_THAT(failure_of(spec), HasSubstr("a Sequence this deep is not supported"));
}

// Cut off and altered files load or throw Error; anything else ends the test.
TEST(BrokenTokenizerFile, NeverCrashesTheReader) {
  TokenizerSpec rich;
  rich.normalizer = R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "NFC"}]})";
  rich.pre_tokenizer =
      R"({"type": "Split", "pattern": {"Regex": "\\s+|[a-c]"}, "behavior": "Isolated", "invert": true})";
  rich.decoder = R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]})";
  rich.added_tokens = R"([{"id": 20, "content": "<s>", "special": true, "lstrip": true}])";
  std::mt19937 random(7);
  for (const std::string& text : {json_text(rich), make_byte_tokenizer_json(262)}) {
    for (int round = 0; round < 400; ++round) {
      std::string altered = text;
      for (int change = 0; change < 3; ++change) altered[random() % altered.size()] = text[random() % text.size()];
      if (round % 4 == 0) altered.resize(random() % altered.size());
      if (failure_of(altered) != "loaded") continue;
      const Tokenizer tokenizer = testing::tokenizer_from(altered);
      const std::vector<TokenId> ids = tokenizer.encode("ab <s> é\n12");
      tokenizer.decode(ids);
    }
  }
}

}  // namespace
}  // namespace scd
