// One prefill server for consumers that are not what it runs: several at once, and models of another depth and width.
#include <gmock/gmock.h>

#include <fstream>
#include <random>

#include "artifact_models.h"
#include "common/model/make_model.h"
#include "common/tokenizer/byte_tokenizer.h"
#include "pair.h"
#include "tests/support/derived_model.h"
#include "tools/scd/rd_calibration.h"

namespace scd::testing {
namespace {

using ::testing::HasSubstr;

class ConsumersTest : public PairTest {
 protected:
  std::filesystem::path artifact() { return root() / "calibrated"; }

  // Calibrates on random ids, of which greedy_request() is made as well.
  void calibrate(const std::filesystem::path& producer, const std::vector<std::filesystem::path>& consumers,
                 const RdPlanOptions& plan) {
    std::mt19937 random(17);
    CalibrationText text;
    for (auto* windows : {&text.fit, &text.validation.windows, &text.held_out.windows}) {
      windows->assign(windows == &text.fit ? 24 : 2, TokenWindow(160));
      for (TokenWindow& window : *windows) {
        for (TokenId& id : window) id = static_cast<TokenId>(3 + random() % 317);
      }
    }
    text.file_sha256 = {std::string(64, '7')};
    const Model a = Model::load({.directory = producer, .adapter = {}, .progress = {}});
    std::vector<std::unique_ptr<Model>> models;
    std::vector<CalibrationInput> inputs;
    for (const auto& consumer : consumers) {
      models.push_back(std::make_unique<Model>(Model::load({.directory = consumer, .adapter = {}, .progress = {}})));
      inputs.push_back({a, *models.back(), model_identity(producer), model_identity(consumer), text});
    }
    RdCalibrationOptions options;
    options.plans = {make_plan(plan, models.front()->config().layers)};
    options.ratios = {6, 24};
    options.experiment.suffix = 24;
    RdCalibrationResult result = calibrate_rd(inputs, options);
    write_artifact(artifact(), result.encoder, result.decoders);
  }

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
  calibrate(base_model(), {tuned_model(), other}, {.exact_layers = 1, .group = 2, .native = {}});
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
      calibrate(producer, {consumer}, plan);
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
