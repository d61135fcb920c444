#include "decode_server/request/validation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "tests/unit/decode_server/served_models.h"

namespace scd {
namespace {

class ValidationTest : public ::testing::Test {
 protected:
  ValidationTest() : tokenizer_(testing::byte_tokenizer()) {
    model_.vocab = 300;
    model_.max_positions = 32;
    request_.set_text("hello");
  }

  Result<CompletionRequest> check() const {
    const ValidationContext context{config_,         model_,  tokenizer_, "tiny", config_.kv_cache.pages,
                                    artifact_codec_, levels_, 1};
    auto checked = check_request(context, request_);
    if (!checked) return checked;
    if (auto added = add_prompt(context, request_, checked.value()); !added) return added.failure();
    return checked;
  }
  void expect_refused(const std::string& field, ErrorCode code = ErrorCode::kInvalidArgument) const {
    const auto checked = check();
    ASSERT_FALSE(checked.ok()) << field;
    EXPECT_EQ(checked.failure().code, code) << checked.failure().message;
    EXPECT_TRUE(checked.failure().message.starts_with(field + ":")) << checked.failure().message;
  }

  DecodeConfig config_;
  std::optional<CodecId> artifact_codec_;
  int32_t levels_ = 1;
  ModelConfig model_;
  Tokenizer tokenizer_;
  v1::CompleteRequest request_;
};

TEST_F(ValidationTest, unset_fields_get_their_documented_defaults) {
  const auto checked = check();
  ASSERT_TRUE(checked.ok()) << checked.failure().message;
  EXPECT_EQ(checked.value().stop.max_tokens, 16);
  EXPECT_FLOAT_EQ(checked.value().sampling.options.temperature, 1.0f);
  EXPECT_FLOAT_EQ(checked.value().sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(checked.value().sampling.logprobs, -1);
  EXPECT_EQ(checked.value().prompt, tokenizer_.encode("hello"));
  EXPECT_EQ(checked.value().mode, TransferMode::kAuto);
}

TEST_F(ValidationTest, refuses_a_missing_or_empty_prompt) {
  request_.set_text("");
  expect_refused("text");
  request_.mutable_token_ids();
  expect_refused("token_ids");
  request_.clear_prompt();
  expect_refused("prompt");
}

TEST_F(ValidationTest, refuses_ids_outside_of_the_vocabulary) {
  request_.mutable_token_ids()->add_ids(300);
  expect_refused("token_ids");
  request_.mutable_token_ids()->set_ids(0, -1);
  expect_refused("token_ids");
}

// Added tokens of a tokenizer often lie behind the model's last row.
TEST_F(ValidationTest, refuses_text_whose_tokens_the_model_does_not_have) {
  model_.vocab = static_cast<int32_t>(*tokenizer_.token_to_id("o"));
  expect_refused("text");
}

TEST_F(ValidationTest, refuses_lists_that_are_too_long_before_it_reads_them) {
  for (int i = 0; i < 32; ++i) request_.mutable_token_ids()->add_ids(3);
  expect_refused("token_ids");
  request_.set_text("hello");
  for (int i = 0; i < 1025; ++i) request_.add_stop_token_ids(3);
  expect_refused("stop_token_ids");
  request_.clear_stop_token_ids();
  for (int32_t id = 0; id < 4097; ++id) (*request_.mutable_logit_bias())[id] = 1;
  EXPECT_EQ(check().failure().message, "logit_bias: 4097 tokens; expected at most 4096");
}

TEST_F(ValidationTest, refuses_a_prompt_that_leaves_no_room_in_the_context) {
  request_.set_text(std::string(31, '.'));  // and <s>
  expect_refused("text");
  request_.set_text(std::string(30, '.'));
  const auto checked = check();
  ASSERT_TRUE(checked.ok());
  EXPECT_EQ(checked.value().stop.max_tokens, 1);
}

// "<unk>" is the longest token of this tokenizer: 31 of them are the longest prompt.
TEST_F(ValidationTest, refuses_a_text_that_no_tokenising_makes_short_enough_before_it_tokenises) {
  ASSERT_EQ(tokenizer_.longest_token_bytes(), 5u);
  const ValidationContext context{config_, model_, tokenizer_, "tiny", config_.kv_cache.pages};
  request_.set_text(std::string(31 * 5, '.'));
  EXPECT_TRUE(check_request(context, request_).ok());
  expect_refused("text");  // by its tokens
  request_.set_text(std::string(31 * 5 + 1, '.'));
  const auto checked = check_request(context, request_);
  ASSERT_FALSE(checked.ok());
  EXPECT_EQ(checked.failure().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(checked.failure().message,
            "text: at least 32 tokens; the model's context of 32 tokens must hold the prompt and at least one more");
}

TEST_F(ValidationTest, takes_a_text_of_the_longest_tokens) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "<unk>";
  request_.set_text(text);
  EXPECT_EQ(check().value().prompt.size(), 31u);
}

TEST_F(ValidationTest, says_when_the_cache_can_never_hold_the_request) {
  config_.kv_cache.pages = 1;
  const auto checked = check();
  ASSERT_FALSE(checked.ok());
  EXPECT_EQ(checked.failure().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(checked.failure().message.ends_with("(kv_cache.pages)")) << checked.failure().message;
}

TEST_F(ValidationTest, refuses_numbers_out_of_range_naming_the_field) {
  struct Case {
    std::string field;
    std::function<void(v1::CompleteRequest&)> set;
  };
  const std::vector<Case> cases = {
      {"max_tokens", [](auto& r) { r.set_max_tokens(0); }},
      {"min_tokens", [](auto& r) { r.set_min_tokens(17); }},
      {"temperature", [](auto& r) { r.set_temperature(-1); }},
      {"temperature", [](auto& r) { r.set_temperature(std::nanf("")); }},
      {"top_p", [](auto& r) { r.set_top_p(0); }},
      {"top_p", [](auto& r) { r.set_top_p(1.5f); }},
      {"min_p", [](auto& r) { r.set_min_p(-0.1f); }},
      {"presence_penalty", [](auto& r) { r.set_presence_penalty(3); }},
      {"frequency_penalty", [](auto& r) { r.set_frequency_penalty(-3); }},
      {"repetition_penalty", [](auto& r) { r.set_repetition_penalty(0); }},
      {"logprobs", [](auto& r) { r.set_logprobs(21); }},
      {"logit_bias", [](auto& r) { (*r.mutable_logit_bias())[300] = 1; }},
      {"logit_bias", [](auto& r) { (*r.mutable_logit_bias())[3] = 101; }},
      {"stop", [](auto& r) { r.add_stop(""); }},
      {"stop", [](auto& r) { r.add_stop(std::string(257, 'a')); }},
      {"stop_token_ids", [](auto& r) { r.add_stop_token_ids(-1); }},
      {"cache_salt", [](auto& r) { r.set_cache_salt(std::string(257, 'a')); }},
      {"codec.choice.codec", [](auto& r) { r.mutable_codec()->mutable_choice(); }},
  };
  const v1::CompleteRequest sound = request_;
  for (const Case& each : cases) {
    request_ = sound;
    each.set(request_);
    expect_refused(each.field);
  }
}

TEST_F(ValidationTest, refuses_several_completions) {
  request_.set_n(2);
  expect_refused("n", ErrorCode::kUnimplemented);
  request_.set_n(1);
  EXPECT_TRUE(check().ok());
}

TEST_F(ValidationTest, a_request_may_choose_its_codec) {
  request_.mutable_codec()->set_exact(true);
  EXPECT_EQ(check().value().mode, TransferMode::kExact);
  request_.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_ORACLE);
  EXPECT_EQ(check().value().mode, TransferMode::kOracle);
  request_.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_SCD);
  expect_refused("codec", ErrorCode::kFailedPrecondition);
  artifact_codec_ = CodecId::kScd;
  request_.mutable_codec()->mutable_choice()->mutable_rank()->set_key(8);
  EXPECT_EQ(check().value().codec.rank.key, 8);
  request_.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RD);
  expect_refused("codec", ErrorCode::kFailedPrecondition);
  request_.mutable_codec()->mutable_choice()->set_codec(static_cast<v1::Codec>(99));
  expect_refused("codec.choice.codec");
}

TEST_F(ValidationTest, a_level_is_one_of_the_artifacts) {
  artifact_codec_ = CodecId::kRd;
  levels_ = 3;
  config_.codec.mode = CodecMode::kRd;
  EXPECT_EQ(check().value().codec.rank.level, 1);  // what the server chose
  v1::CodecChoice& choice = *request_.mutable_codec()->mutable_choice();
  choice.set_codec(v1::CODEC_RD);
  EXPECT_EQ(check().value().codec.rank.level, 0);
  choice.set_level(2);
  EXPECT_EQ(check().value().codec.rank.level, 2);
  choice.set_level(3);
  expect_refused("codec.choice.level");
  choice.set_codec(v1::CODEC_INT4);
  choice.set_level(1);
  expect_refused("codec.choice.level");
}

TEST_F(ValidationTest, the_server_chooses_what_nobody_named) {
  EXPECT_EQ(check().value().codec.id, CodecId::kRaw);
  EXPECT_TRUE(check().value().needs_one_model());
  artifact_codec_ = CodecId::kRd;
  levels_ = 3;
  EXPECT_EQ(check().value().mode, TransferMode::kAuto);
  EXPECT_EQ(check().value().codec.id, CodecId::kRd);
  EXPECT_TRUE(check().value().level_open);
  EXPECT_FALSE(check().value().needs_one_model());
  config_.codec.level = 1;
  EXPECT_EQ(check().value().mode, TransferMode::kCodec);
  config_.codec.level = -1;
  config_.codec.mode = CodecMode::kRaw;
  EXPECT_EQ(check().value().mode, TransferMode::kCodec);
  EXPECT_EQ(check().value().codec.id, CodecId::kRaw);
  config_.codec.mode = CodecMode::kOracle;
  EXPECT_EQ(check().value().mode, TransferMode::kOracle);
}

TEST_F(ValidationTest, a_form_is_named_of_codecs_that_have_forms) {
  artifact_codec_ = CodecId::kRd;
  v1::CodecChoice& choice = *request_.mutable_codec()->mutable_choice();
  choice.set_codec(v1::CODEC_RD);
  EXPECT_TRUE(check().value().form_open);
  choice.set_form(v1::CODE_FORM_PACKED);
  EXPECT_FALSE(check().value().form_open);
  EXPECT_TRUE(check().value().codec.rank.packed);
  choice.set_form(v1::CODE_FORM_ENTROPY);
  EXPECT_FALSE(check().value().form_open);
  EXPECT_FALSE(check().value().codec.rank.packed);
  choice.set_form(static_cast<v1::CodeForm>(9));
  expect_refused("codec.choice.form");
  choice.set_form(v1::CODE_FORM_PACKED);
  choice.set_codec(v1::CODEC_RAW);
  expect_refused("codec.choice.form");
}

}  // namespace
}  // namespace scd
