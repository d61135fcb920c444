// Which codes a request gets that leaves it to the server, and that it says why.
#include <gmock/gmock.h>

#include "rd_pair.h"

namespace scd::testing {
namespace {

using ::testing::HasSubstr;

// So slow that what codes cost to make and read is nothing beside what bytes cost to send, on any machine.
constexpr double kSlowGbps = 0.002;

bool keeps_bits(v1::Codec codec) { return codec == v1::CODEC_RAW || codec == v1::CODEC_LOSSLESS; }

void automatic(DecodeConfig& config) { config.codec.mode = CodecMode::kAuto; }

class CodecChoiceTest : public RdPairTest {
 protected:
  v1::GetServerInfoResponse server_info() {
    grpc::ClientContext context;
    v1::GetServerInfoResponse info;
    EXPECT_TRUE(stub->GetServerInfo(&context, {}, &info).ok());
    return info;
  }
  // Of a request that no earlier one resembles.
  v1::TransferAccount transfer_of(v1::CompleteRequest request) { return complete(request).finish().transfer(); }
  v1::CompleteRequest fresh_request() { return greedy_request(300, ++seed_); }

  uint32_t seed_ = 0;
};

TEST_F(CodecChoiceTest, one_model_over_a_slow_link_sends_its_bits_lossless) {
  SCD_SKIP_ON_GPU();
  start_rd_prefill(kSlowGbps);
  start_decode(automatic);
  EXPECT_EQ(server_info().codec().codec(), v1::CODEC_RAW);
  auto request = greedy_request(200);
  const auto alone = complete_alone(request);
  for (const bool exact : {false, true}) {
    if (exact) request.mutable_codec()->set_exact(true);
    const auto response = complete(request);
    EXPECT_EQ(response.finish().transfer().codec(), v1::CODEC_LOSSLESS);
    EXPECT_THAT(response.finish().transfer().codec_reason(), HasSubstr("Gbit/s a token takes raw "));
    EXPECT_EQ(response.text(), alone.text());
  }
  EXPECT_EQ(server_info().codec().codec(), v1::CODEC_LOSSLESS);
  EXPECT_THAT(server_info().codec_reason(), HasSubstr("Gbit/s a token takes raw "));
  expect_idle();
}

TEST_F(CodecChoiceTest, one_model_over_an_unknown_link_sends_raw) {
  start_rd_prefill();
  start_decode(automatic);
  const v1::TransferAccount transfer = transfer_of(fresh_request());
  EXPECT_EQ(transfer.codec(), v1::CODEC_RAW);
  EXPECT_EQ(transfer.codec_reason(), "the link is not measured yet");
}

TEST_F(CodecChoiceTest, two_models_without_an_artifact_compute_the_prompt_where_it_is_answered) {
  start_rd_prefill();
  start_decode([this](DecodeConfig& config) {
    automatic(config);
    config.model.directory = tuned_model();
  });
  const auto request = fresh_request();
  const auto response = complete(request);
  EXPECT_EQ(response.finish().transfer().codec(), v1::CODEC_ORACLE);
  EXPECT_THAT(response.finish().transfer().codec_reason(), HasSubstr("weights: producer"));
  EXPECT_EQ(response.finish().transfer().fallback_reason(), "");
  EXPECT_EQ(response.text(), complete_alone(request).text());
  EXPECT_EQ(decode_server->counters().local_fallbacks, 0U);
  expect_idle();
}

TEST_F(CodecChoiceTest, two_models_get_codes_however_fast_the_link_is) {
  write_artifact_of({1, {{1, codec_model(base_model()).layers - 1, true}}}, tuned_model());
  start_rd_prefill();
  start_rd([this](DecodeConfig& config) {
    automatic(config);
    config.model.directory = tuned_model();
  });
  for (int i = 0; i < 5; ++i) {
    const v1::TransferAccount transfer = transfer_of(fresh_request());
    EXPECT_EQ(transfer.codec(), v1::CODEC_RD);
    EXPECT_THAT(transfer.codec_reason(), HasSubstr("two models differ"));
  }
}

TEST_F(CodecChoiceTest, one_model_over_a_slow_link_sends_the_artifacts_codes) {
  start_rd_prefill(kSlowGbps);
  start_rd(automatic);
  for (int i = 0; i < 3; ++i) {
    const v1::TransferAccount transfer = transfer_of(fresh_request());
    EXPECT_EQ(transfer.codec(), v1::CODEC_RD) << transfer.codec_reason();
  }
  EXPECT_EQ(server_info().codec().codec(), v1::CODEC_RD);
}

// The artifact has the consumer run all layers but one over the prefix: on a link within one process that never pays.
TEST_F(CodecChoiceTest, one_model_over_a_fast_link_ends_up_with_its_bits_unless_a_codec_or_level_is_named) {
  write_artifact_of({1, {{1, codec_model(base_model()).layers - 1, true}}});
  start_rd_prefill();
  start_rd(automatic);
  const auto first = fresh_request();
  EXPECT_EQ(transfer_of(first).codec(), v1::CODEC_RD);
  v1::TransferAccount transfer;
  for (int i = 0; i < 50 && !keeps_bits(transfer.codec()); ++i) transfer = transfer_of(fresh_request());
  EXPECT_TRUE(keeps_bits(transfer.codec())) << transfer.codec_reason();
  EXPECT_THAT(transfer.codec_reason(), HasSubstr("a token takes rd "));
  EXPECT_EQ(server_info().codec().codec(), transfer.codec());
  EXPECT_EQ(complete(first).text(), complete_alone(first).text());

  auto named = fresh_request();
  named.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RD);
  EXPECT_EQ(transfer_of(named).codec(), v1::CODEC_RD);
  start_rd();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(transfer_of(fresh_request()).codec(), v1::CODEC_RD);
  start_rd([](DecodeConfig& config) {
    automatic(config);
    config.codec.level = 1;
  });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(transfer_of(fresh_request()).codec(), v1::CODEC_RD);
  expect_idle();
}

TEST_F(CodecChoiceTest, both_forms_answer_alike_in_different_bytes_and_stored_codes_serve_either) {
  start_rd_prefill();
  start_rd();
  auto request = fresh_request();
  request.set_logprobs(5);
  v1::CodecChoice& choice = *request.mutable_codec()->mutable_choice();
  choice.set_codec(v1::CODEC_RD);
  choice.set_level(2);
  const auto complete_in = [&](v1::CodeForm form, bool stored) {
    choice.set_form(form);
    const auto response = complete(request);
    EXPECT_EQ(response.finish().transfer().form(), form);
    EXPECT_EQ(response.finish().transfer().fallback_reason(), "");
    EXPECT_EQ(response.finish().transfer().cached_tokens() > 0, stored);
    return response;
  };
  const auto entropy = complete_in(v1::CODE_FORM_ENTROPY, false);
  request.set_cache_salt("packed");
  const auto packed = complete_in(v1::CODE_FORM_PACKED, false);
  EXPECT_LT(entropy.finish().transfer().wire_bytes(), packed.finish().transfer().wire_bytes());
  EXPECT_EQ(packed.text(), entropy.text());
  for (int i = 0; i < packed.logprobs_size(); ++i) {
    EXPECT_EQ(packed.logprobs(i).chosen().logprob(), entropy.logprobs(i).chosen().logprob());
  }
  const auto again = complete_in(v1::CODE_FORM_ENTROPY, true);
  EXPECT_EQ(again.finish().transfer().wire_bytes(), packed.finish().transfer().wire_bytes());
  EXPECT_EQ(again.text(), entropy.text());
  expect_idle();
}

}  // namespace
}  // namespace scd::testing
