#include "prefill_server/request/start.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/codec/registry.h"

namespace scd {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Producer make_test_producer() {
  Producer producer;
  producer.fingerprint = {.weights = "aaaa", .tokenizer = "bbbb", .rope = "{}"};
  producer.layers = 4;
  producer.vocabulary = 100;
  producer.context_tokens = 64;
  CodecModel shape{.layers = 4, .kv_heads = 1, .head_dim = 4, .hidden = 8, .rope = {{1.0F, 0.1F}}};
  producer.encoders.emplace_back(CodecId::kRaw, make_encoder(CodecId::kRaw, shape, nullptr));
  return producer;
}

class StartTest : public ::testing::Test {
 protected:
  StartTest() {
    start_.set_request_id(9);
    start_.set_generation(3);
    for (int i = 0; i < 40; ++i) start_.add_token_ids(i);
    start_.set_handover_tokens(32);
    start_.mutable_codec()->set_codec(v1::CODEC_RAW);
    start_.set_transfer_token(std::string(16, 't'));
    start_.set_data_plane_address("host:1");
    start_.set_slot_bytes(1000);
    start_.set_credit_messages(4);
  }
  Failure refusal() const {
    const auto request = read_start(start_, producer_, {});
    return request.ok() ? Failure{ErrorCode::kUnknown, "accepted"} : request.failure();
  }
  void expect_invalid(const std::string& what) const {
    EXPECT_EQ(refusal().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(refusal().message, HasSubstr(what));
  }

  const Producer producer_ = make_test_producer();
  v1::StartPrefill start_;
};

TEST_F(StartTest, AGoodStartIsReadWholeAndTokensBehindTheHandoverAreNot) {
  start_.set_skip_tokens(4);
  start_.set_first_layer(1);
  start_.set_deadline_ms(250);
  const PrefillClock::time_point now{std::chrono::seconds(5)};
  const auto read = read_start(start_, producer_, now);
  ASSERT_TRUE(read.ok());
  const PrefillRequest& request = read.value();
  EXPECT_EQ(request.tokens.size(), 32U);
  EXPECT_EQ(request.skip_tokens, 4);
  EXPECT_EQ(request.first_layer, 1);
  EXPECT_EQ(request.transfer_token[15], 't');
  EXPECT_EQ(request.deadline, now + std::chrono::milliseconds(250));
}

TEST_F(StartTest, FieldsOutOfRangeAreNamed) {
  start_.set_handover_tokens(24);
  expect_invalid("handover_tokens is 24; it must be a multiple of 16");
  start_.set_handover_tokens(48);
  expect_invalid("only 40 token_ids were sent");
  for (int i = 0; i < 60; ++i) start_.add_token_ids(1);
  start_.set_handover_tokens(80);
  expect_invalid("80 tokens exceed the producer's context of 64");
  start_.set_handover_tokens(32);
  start_.set_token_ids(7, 100);
  expect_invalid("token 100 at position 7 is not in the vocabulary of 100");
  start_.set_token_ids(7, -1);
  expect_invalid("token -1");
  start_.set_token_ids(7, 1);
  start_.set_skip_tokens(32);
  expect_invalid("skip_tokens is 32");
  start_.set_skip_tokens(0);
  start_.set_first_layer(4);
  expect_invalid("first_layer is 4 of 4 layers");
  start_.set_first_layer(0);
  start_.set_transfer_token("short");
  expect_invalid("transfer_token has 5 bytes");
  start_.set_transfer_token(std::string(16, 't'));
  start_.set_credit_messages(0);
  expect_invalid("credit_messages is 0");
  start_.set_credit_messages(1);
  EXPECT_EQ(refusal().message, "accepted");
  start_.clear_token_ids();
  expect_invalid("token_ids is empty");
}

TEST_F(StartTest, ACodecThatIsNotOfferedIsUnimplemented) {
  start_.mutable_codec()->set_codec(v1::CODEC_SCD);
  EXPECT_EQ(refusal().code, ErrorCode::kUnimplemented);
  EXPECT_THAT(refusal().message, HasSubstr("codec scd is not offered here; offered: raw"));
  start_.mutable_codec()->set_codec(v1::CODEC_UNSPECIFIED);
  EXPECT_EQ(refusal().code, ErrorCode::kUnimplemented);
}

TEST_F(StartTest, AFormThatTheCodecDoesNotHaveIsInvalid) {
  start_.mutable_codec()->set_form(v1::CODE_FORM_PACKED);
  expect_invalid("codec raw has no form 2");
  start_.mutable_codec()->set_form(static_cast<v1::CodeForm>(7));
  expect_invalid("codec raw has no form 7");
}

TEST_F(StartTest, FingerprintsThatDifferAreEachNamedWithBothValues) {
  start_.mutable_expected_model()->set_weights("aaaa");
  start_.mutable_expected_model()->set_tokenizer("other");
  start_.mutable_expected_model()->set_rope("{\"theta\":1}");
  start_.set_expected_encoder_id(std::string(32, '\x01'));
  EXPECT_EQ(refusal().code, ErrorCode::kFailedPrecondition);
  EXPECT_THAT(refusal().message,
              AllOf(HasSubstr("tokenizer: this prefill server has bbbb, the decode server expects other"),
                    HasSubstr("RoPE settings"), HasSubstr("codec encoder"), ::testing::Not(HasSubstr("weights"))));
}

}  // namespace
}  // namespace scd
