#include "decode_server/generate/generation.h"

#include <gtest/gtest.h>

#include "tests/unit/decode_server/served_models.h"

namespace scd {
namespace {

constexpr int kVocab = 300;
constexpr TokenId kEnd = 2;

TokenId byte_id(char c) { return 3 + static_cast<unsigned char>(c); }

class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest() : tokenizer_(testing::byte_tokenizer(kVocab)) { request_.stop.max_tokens = 100; }

  // Makes the generation produce exactly these bytes.
  struct Outcome {
    std::string text;
    std::vector<TokenId> ids;
    std::optional<FinishReason> finish;
    std::string stopped_by;
  };
  Outcome generate(const std::vector<TokenId>& ids) {
    Generation generation(request_, tokenizer_, {kEnd});
    Outcome outcome;
    for (const TokenId id : ids) {
      std::vector<float> logits(kVocab, 0.0f);
      logits[static_cast<size_t>(id)] = 50.0f;
      const auto step = generation.take(generation.sampler().next(logits));
      outcome.text += step.delta.text;
      outcome.ids.insert(outcome.ids.end(), step.delta.ids.begin(), step.delta.ids.end());
      outcome.finish = step.finish;
      outcome.stopped_by = step.stopped_by;
      if (step.finish) break;
    }
    return outcome;
  }
  static std::vector<TokenId> bytes(const std::string& text) {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(byte_id(c));
    return ids;
  }

  Tokenizer tokenizer_;
  CompletionRequest request_;
};

TEST_F(GenerationTest, ends_with_length_after_max_tokens) {
  request_.stop.max_tokens = 3;
  const Outcome outcome = generate(bytes("abcdef"));
  EXPECT_EQ(outcome.text, "abc");
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
}

TEST_F(GenerationTest, ends_at_end_of_sequence_without_its_text) {
  auto ids = bytes("ab");
  ids.push_back(kEnd);
  const Outcome outcome = generate(ids);
  EXPECT_EQ(outcome.text, "ab");
  EXPECT_EQ(outcome.ids, ids);
  EXPECT_EQ(outcome.finish, FinishReason::kStop);
  EXPECT_EQ(outcome.stopped_by, "</s>");
}

TEST_F(GenerationTest, goes_on_past_end_of_sequence_when_asked_to) {
  request_.stop.ignore_end_of_sequence = true;
  const Outcome outcome = generate({byte_id('a'), kEnd, byte_id('b')});
  EXPECT_EQ(outcome.text, "ab");
  EXPECT_FALSE(outcome.finish);
}

TEST_F(GenerationTest, ends_at_a_stop_id_without_its_text) {
  request_.stop.ids = {byte_id('x')};
  const Outcome outcome = generate(bytes("abxc"));
  EXPECT_EQ(outcome.text, "ab");
  EXPECT_EQ(outcome.finish, FinishReason::kStop);
}

TEST_F(GenerationTest, ends_before_a_stop_string_that_spans_tokens) {
  request_.stop.strings = {"STOP"};
  const Outcome outcome = generate(bytes("say STOP now"));
  EXPECT_EQ(outcome.text, "say ");
  EXPECT_EQ(outcome.ids.size(), 8u);
  EXPECT_EQ(outcome.stopped_by, "STOP");
}

TEST_F(GenerationTest, text_held_back_for_a_stop_string_comes_with_the_end) {
  request_.stop.strings = {"STOP"};
  request_.stop.max_tokens = 4;
  const Outcome outcome = generate(bytes("aSTO"));
  EXPECT_EQ(outcome.text, "aSTO");
  EXPECT_EQ(outcome.finish, FinishReason::kLength);
}

TEST_F(GenerationTest, stop_strings_within_min_tokens_are_text) {
  request_.stop.strings = {"b"};
  request_.sampling.min_tokens = 3;
  const Outcome outcome = generate(bytes("abcb"));
  EXPECT_EQ(outcome.text, "abc");
  EXPECT_EQ(outcome.finish, FinishReason::kStop);
}

TEST_F(GenerationTest, never_cuts_a_character) {
  const std::string text = "a\xC3\xA4\xE2\x82\xAC!";
  Generation generation(request_, tokenizer_, {kEnd});
  std::vector<std::string> pieces;
  for (const TokenId id : bytes(text)) {
    std::vector<float> logits(kVocab, 0.0f);
    logits[static_cast<size_t>(id)] = 50.0f;
    const std::string piece = generation.take(generation.sampler().next(logits)).delta.text;
    if (!piece.empty()) pieces.push_back(piece);
  }
  EXPECT_EQ(pieces, (std::vector<std::string>{"a", "\xC3\xA4", "\xE2\x82\xAC", "!"}));
}

TEST_F(GenerationTest, reports_log_probabilities_where_asked) {
  request_.sampling.logprobs = 2;
  Generation generation(request_, tokenizer_, {kEnd});
  std::vector<float> logits(kVocab, -100.0f);
  logits[static_cast<size_t>(byte_id('a'))] = 1.0f;
  logits[static_cast<size_t>(byte_id('b'))] = 1.0f;
  const auto step = generation.take(generation.sampler().next(logits));
  ASSERT_EQ(step.delta.logprobs.size(), 1u);
  EXPECT_EQ(step.delta.logprobs[0].chosen.text, "a");
  EXPECT_NEAR(step.delta.logprobs[0].chosen.logprob, -0.6931f, 1e-3f);
  ASSERT_EQ(step.delta.logprobs[0].most_probable.size(), 2u);
}

}  // namespace
}  // namespace scd
