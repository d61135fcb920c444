// One prefill server for consumers that are not what it runs: several at once, and models of another depth and width.
#include <gmock/gmock.h>

#include <fstream>

#include "calibrated_pair.h"
#include "common/model/make_model.h"
#include "common/tokenizer/byte_tokenizer.h"
#include "pair.h"
#include "tests/support/derived_model.h"

namespace scd::testing {
namespace {

using ::testing::HasSubstr;

class ConsumersTest : public PairTest {
 protected:
  std::filesystem::path artifact() { return root() / "calibrated"; }

  void start_consumer(const std::filesystem::path& model) {
    start_decode([&](DecodeConfig& config) {
      config.model.directory = model;
      config.codec.mode = CodecMode::kRd;
      config.codec.artifact = artifact();
      config.codec.max_native_share = 0.9;
    });
  }

  v1::CompleteRequest rd_request() {
    v1::CompleteRequest request = greedy_request(300);
    request.set_logprobs(5);
    request.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RD);
    return request;
  }
};

TEST_F(ConsumersTest, a_second_consumer_is_served_from_the_code_stored_for_the_first) {
  const auto other = make("other", "tiny", 1, 0.1);
  calibrate_pair(base_model(), {{tuned_model()}, {other}}, {.exact_layers = 1, .group = 2, .native = {}}, artifact());
  start_prefill([this](PrefillConfig& config) { config.codec.artifact = artifact(); });
  uint64_t first_bytes = 0;
  for (const auto& consumer : {tuned_model(), other}) {
    start_consumer(consumer);
    const auto alone = complete_alone(rd_request());
    const auto coded = complete(rd_request());
    const v1::TransferAccount& transfer = coded.finish().transfer();
    EXPECT_EQ(transfer.codec(), v1::CODEC_RD);
    EXPECT_EQ(transfer.fallback_reason(), "");
    EXPECT_EQ(transfer.cached_tokens() > 0, consumer == other);
    if (first_bytes == 0) first_bytes = transfer.wire_bytes();
    EXPECT_EQ(transfer.wire_bytes(), first_bytes);
    EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone.logprobs(0).top(0).logprob(), 0.5);
    expect_idle();
  }
}

TEST_F(ConsumersTest, a_consumer_of_another_depth_and_width_is_served) {
  const auto source = root() / "source";
  make_model({.seed = 5, .dtype = "float32"}, source);
  const auto derived = root() / "derived";
  DerivedModel(source, {.twice_as_deep = true, .twice_as_wide = true}).write(derived);
  for (const auto& model : {source, derived}) {
    std::ofstream(model / "tokenizer.json") << make_byte_tokenizer_json(320);
  }
  const std::vector<RdPlanOptions> of_deep{{.exact_layers = 1, .group = 3, .native = {}},
                                           {.exact_layers = 2, .group = 1, .native = {{3, 4}}}};
  const std::vector<RdPlanOptions> of_shallow{{.exact_layers = 1, .group = 2, .native = {}},
                                              {.exact_layers = 1, .group = 1, .native = {{2, 2}}}};
  for (const auto& [producer, consumer, plans] :
       {std::tuple(source, derived, of_deep), std::tuple(derived, source, of_shallow)}) {
    for (const RdPlanOptions& plan : plans) {
      std::filesystem::remove_all(artifact());
      calibrate_pair(producer, {{consumer}}, plan, artifact());
      start_prefill([&, from = producer](PrefillConfig& config) {
        config.model.directory = from;
        config.codec.artifact = artifact();
      });
      start_consumer(consumer);
      const auto alone = complete_alone(rd_request());
      for (const bool stored : {false, true}) {
        const auto coded = complete(rd_request());
        const v1::TransferAccount& transfer = coded.finish().transfer();
        EXPECT_EQ(transfer.codec(), v1::CODEC_RD);
        EXPECT_EQ(transfer.fallback_reason(), "");
        EXPECT_EQ(transfer.cached_tokens() > 0, stored);
        EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone.logprobs(0).top(0).logprob(), 0.15);
      }
      auto raw = greedy_request(200);
      raw.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_RAW);
      v1::CompleteResponse response;
      const grpc::Status refused = complete(raw, response);
      EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
      EXPECT_THAT(refused.error_message(), HasSubstr("producer has layers"));
      expect_idle();
      stub.reset();
      decode_server.reset();
      prefill_servers.clear();
    }
  }
}

}  // namespace
}  // namespace scd::testing
