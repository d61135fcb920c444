// One base, several adapters: answers are those of models with the adapter in their weights, prefill servers compute
// and store once for all of them, and nobody is served another one's state.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <thread>

#include "calibrated_pair.h"
#include "rd_pair.h"
#include "scd/v1/model_admin.grpc.pb.h"
#include "tests/unit/model/adapter_files.h"

namespace scd::testing {
namespace {

using ::testing::HasSubstr;

class AdaptersTest : public PairTest {
 protected:
  AdaptersTest() {
    write_adapter(base_model(), adapter("one"), 1);
    write_adapter(base_model(), adapter("two"), 2);
  }
  std::filesystem::path adapter(const std::string& name) { return root() / ("adapter_" + name); }
  std::filesystem::path artifact() { return root() / "rd"; }
  ModelIdentity identity(const std::string& name) { return model_identity(base_model(), adapter(name)); }

  void start_models(const ChangeDecode& change = {}) {
    start_decode([&](DecodeConfig& config) {
      config.models = {{.name = "base"}, {.name = "one"}, {.name = "two"}};
      for (const size_t i : {1, 2}) config.models[i].adapter = adapter(config.models[i].name);
      config.model_admin = true;
      if (change) change(config);
    });
    admin = v1::ModelAdminService::NewStub(
        grpc::CreateChannel(decode_server->address(), grpc::InsecureChannelCredentials()));
  }
  v1::CompleteRequest request_to(const std::string& model, int tokens = 300, uint32_t seed = 1) {
    v1::CompleteRequest request = greedy_request(tokens, seed);
    request.set_model(model);
    request.set_logprobs(20);
    return request;
  }
  grpc::Status load(const std::string& name, const std::string& of, bool in_place = false,
                    const std::filesystem::path& codes = {}) {
    v1::LoadModelRequest request;
    request.set_name(name);
    request.set_adapter(adapter(of).string());
    request.set_artifact(codes.string());
    request.set_load_inplace(in_place);
    grpc::ClientContext context;
    v1::LoadModelResponse response;
    return admin->LoadModel(&context, request, &response);
  }
  grpc::Status unload(const std::string& name) {
    v1::UnloadModelRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    v1::UnloadModelResponse response;
    return admin->UnloadModel(&context, request, &response);
  }
  v1::ListModelsResponse models() {
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    EXPECT_TRUE(stub->ListModels(&context, {}, &response).ok());
    return response;
  }
  grpc::Status refusal(const v1::CompleteRequest& request) {
    v1::CompleteResponse response;
    return complete(request, response);
  }

  std::unique_ptr<v1::ModelAdminService::Stub> admin;
};

// The probabilities of the first token, by id.
std::map<int32_t, float> first_token(const v1::CompleteResponse& response) {
  std::map<int32_t, float> logprobs;
  for (const auto& top : response.logprobs(0).top()) logprobs[top.token_id()] = top.logprob();
  return logprobs;
}

// Largest difference over tokens that both name.
float distance(const v1::CompleteResponse& a, const v1::CompleteResponse& b) {
  const auto mine = first_token(a), theirs = first_token(b);
  float largest = 0;
  int shared = 0;
  for (const auto& [id, logprob] : mine) {
    const auto found = theirs.find(id);
    if (found == theirs.end()) continue;
    ++shared;
    largest = std::max(largest, std::abs(logprob - found->second));
  }
  return shared < 10 ? INFINITY : largest;
}

TEST_F(AdaptersTest, each_answers_as_with_the_adapter_in_its_weights) {
  std::map<std::string, v1::CompleteResponse> merged;
  for (const std::string name : {"base", "one", "two"}) {
    start_decode([&](DecodeConfig& config) {
      if (name != "base") config.model.adapter = adapter(name);
      config.model.name = name;
      config.codec.mode = CodecMode::kOracle;
    });
    merged[name] = complete(request_to(name));
    EXPECT_EQ(refusal(request_to("another")).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  start_models([](DecodeConfig& config) { config.codec.mode = CodecMode::kOracle; });
  // Alone, and together in one batch.
  std::map<std::string, std::future<v1::CompleteResponse>> together;
  for (const auto& [name, expected] : merged) {
    EXPECT_LT(distance(complete(request_to(name)), expected), 0.1f) << name;
    together[name] = std::async(std::launch::async, [this, name = name] { return complete(request_to(name)); });
  }
  for (auto& [name, response] : together) {
    const auto answer = response.get();
    EXPECT_EQ(answer.model(), name);
    EXPECT_LT(distance(answer, merged[name]), 0.1f) << name;
  }
  EXPECT_GT(distance(merged["one"], merged["two"]), 0.3f) << "the adapters are too alike to be told apart";
  EXPECT_GT(distance(merged["one"], merged["base"]), 0.3f);
  EXPECT_EQ(complete(request_to("")).model(), "base");
  const grpc::Status unknown = refusal(request_to("three"));
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(unknown.error_message(), HasSubstr("'base', 'one', 'two'"));
  expect_idle();
}

TEST_F(AdaptersTest, keys_and_values_kept_for_one_are_not_the_others) {
  SCD_SKIP_ON_GPU();
  start_models([](DecodeConfig& config) {
    config.codec.mode = CodecMode::kOracle;
    config.prefix_cache.enabled = true;
  });
  for (const std::string name : {"base", "one", "two"}) {
    EXPECT_EQ(complete(request_to(name)).finish().transfer().prefix_cached_tokens(), 0u) << name;
  }
  for (const std::string name : {"base", "one", "two"}) {
    auto afresh = request_to(name);
    afresh.set_skip_reading_prefix_cache(true);
    const auto again = complete(request_to(name));
    EXPECT_EQ(again.finish().transfer().prefix_cached_tokens(), 288u) << name;
    EXPECT_LT(distance(again, complete(afresh)), 0.05f) << name;
  }
  expect_idle();
}

// The same fingerprint, but the producer rounded after merging.
TEST_F(AdaptersTest, exact_never_takes_the_bits_of_a_merged_producer) {
  SCD_SKIP_ON_GPU();
  start_prefill([this](PrefillConfig& config) { config.model.adapter = adapter("one"); });
  start_models();
  auto exact = request_to("one");
  exact.mutable_codec()->set_exact(true);
  const v1::TransferAccount account = complete(exact).finish().transfer();
  EXPECT_EQ(account.codec(), v1::CODEC_ORACLE);
  EXPECT_EQ(account.wire_bytes(), 0u);
  EXPECT_THAT(account.codec_reason(), HasSubstr("adapter"));
  EXPECT_EQ(decode_server->counters().transfers_started, 0u) << "there is nobody to ask";
  const auto raw = complete(request_to("one"));
  EXPECT_EQ(raw.finish().transfer().codec(), v1::CODEC_RAW);
  EXPECT_GT(raw.finish().transfer().wire_bytes(), 0u);
  EXPECT_LT(distance(raw, complete_alone(request_to("one"))), 0.1f);
  // The base itself is the producer's where that has no adapter.
  prefill_servers.clear();
  start_prefill();
  start_models();
  auto base = request_to("base");
  base.mutable_codec()->set_exact(true);
  EXPECT_GT(complete(base).finish().transfer().wire_bytes(), 0u);
  expect_idle();
}

class SharedCodesOfAdaptersTest : public AdaptersTest {
 protected:
  void calibrate() {
    calibrate_pair(base_model(), {{base_model(), adapter("one")}, {base_model(), adapter("two")}},
                   {.exact_layers = 1, .group = 1, .native = {{2, 2}}}, artifact());
  }
};

TEST_F(SharedCodesOfAdaptersTest, one_prefill_and_one_stored_code_serve_every_adapter) {
  calibrate();
  start_prefill([this](PrefillConfig& config) { config.codec.artifact = artifact(); });
  start_models([this](DecodeConfig& config) {
    config.models.erase(config.models.begin());  // the artifact has no decoder for the base
    config.codec.mode = CodecMode::kRd;
    config.codec.artifact = artifact();
    config.codec.max_native_share = 0.9;
  });
  const v1::ListModelsResponse listed = models();
  ASSERT_EQ(listed.models_size(), 2);
  for (const v1::ModelCard& card : listed.models()) {
    EXPECT_EQ(card.codec().codec(), v1::CODEC_RD);
    EXPECT_EQ(card.codec().encoder_id(), listed.models(0).codec().encoder_id());
    EXPECT_EQ(card.codec().encoder_id().size(), 32u);
    EXPECT_EQ(card.levels(), 2u);
    EXPECT_GT(card.adapter_bytes(), 0u);
  }
  EXPECT_NE(listed.models(0).fingerprint().weights(), listed.models(1).fingerprint().weights());
  std::optional<CodeCacheCounters> stored;
  uint64_t bytes = 0;
  std::map<std::string, v1::CompleteResponse> alone;
  for (const std::string name : {"one", "two"}) alone[name] = complete_alone(request_to(name));
  for (const std::string name : {"one", "two"}) {
    const auto coded = complete(request_to(name));
    const v1::TransferAccount& transfer = coded.finish().transfer();
    EXPECT_EQ(transfer.codec(), v1::CODEC_RD);
    EXPECT_EQ(transfer.fallback_reason(), "");
    const auto& other = alone[name == "one" ? "two" : "one"];
    EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone[name].logprobs(0).top(0).logprob(), 0.5) << name;
    EXPECT_LT(distance(coded, alone[name]), 0.7f * distance(coded, other)) << name;
    const CodeCacheCounters now = prefill_servers[0]->counters().code_cache;
    if (!stored) {
      EXPECT_EQ(transfer.cached_tokens(), 0u);
      EXPECT_GT(transfer.prefill_ms(), 0);
      bytes = transfer.wire_bytes();
    } else {
      EXPECT_EQ(transfer.cached_tokens(), transfer.handover_tokens());
      EXPECT_EQ(transfer.prefill_ms(), 0) << "the prompt was computed again";
      EXPECT_EQ(transfer.wire_bytes(), bytes);
      EXPECT_EQ(now.misses, stored->misses);
      EXPECT_EQ(now.chunks, stored->chunks);
    }
    stored = now;
  }
  expect_idle();
}

TEST_F(AdaptersTest, models_come_and_go_while_the_server_runs) {
  SCD_SKIP_ON_GPU();
  start_models([](DecodeConfig& config) {
    config.models.pop_back();
    config.codec.mode = CodecMode::kOracle;
    config.prefix_cache.enabled = true;
  });
  EXPECT_EQ(refusal(request_to("two")).error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(load("two", "two").ok());
  EXPECT_EQ(models().models_size(), 3);
  const int32_t kept_before = decode_server->counters().pages_kept;
  EXPECT_EQ(complete(request_to("two")).model(), "two");
  EXPECT_EQ(load("two", "two").error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_TRUE(load("two", "one", /*in_place=*/true).ok());
  // What does not load changes nothing.
  const grpc::Status missing = load("three", "three");
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(missing.error_message(), HasSubstr("model 'three': adapter: "));
  const grpc::Status too_long = load("three", std::string(300, 'x'));
  EXPECT_EQ(too_long.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(too_long.error_message(), HasSubstr("xxx: File name too long"));
  EXPECT_EQ(load("", "one").error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const grpc::Status no_artifact = load("two", "two", true, root() / "nowhere");
  EXPECT_EQ(no_artifact.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(no_artifact.error_message(), HasSubstr("model 'two': artifact: "));
  EXPECT_EQ(models().models_size(), 3);
  EXPECT_EQ(unload("three").error_code(), grpc::StatusCode::NOT_FOUND);
  // A request under way ends with the model it began with.
  auto slow = request_to("two");
  slow.set_max_tokens(400);
  auto under_way = std::async(std::launch::async, [&] { return complete(slow); });
  ASSERT_TRUE(eventually([this] { return decode_server->counters().sequences > 0; }));
  ASSERT_TRUE(unload("two").ok());
  EXPECT_EQ(refusal(request_to("two")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(under_way.get().token_ids_size(), 400);
  EXPECT_TRUE(eventually([&] { return decode_server->counters().pages_kept <= kept_before; }));
  EXPECT_EQ(models().models_size(), 2);
  expect_idle();
}

// A named pipe holds whoever reads it.
class WaitingLoadsTest : public AdaptersTest {
 protected:
  struct Load {
    v1::LoadModelRequest request;
    v1::LoadModelResponse response;
    grpc::ClientContext context;
    std::promise<grpc::StatusCode> ended;
  };

  WaitingLoadsTest() {
    std::filesystem::copy(adapter("one"), adapter("held"), std::filesystem::copy_options::recursive);
    std::filesystem::remove(pipe());
    EXPECT_EQ(::mkfifo(pipe().c_str(), 0600), 0);
    start_models();
  }
  std::filesystem::path pipe() { return adapter("held") / "adapter_config.json"; }
  // Begins a call; the server has it when this returns, for calls that were begun later have come back.
  void begin(Load& load, const std::string& of) {
    load.request.set_name(of + "_loaded");
    load.request.set_adapter(adapter(of).string());
    admin->async()->LoadModel(&load.context, &load.request, &load.response,
                              [&load](const grpc::Status& status) { load.ended.set_value(status.error_code()); });
    pass_time();
  }
  void pass_time() {
    for (int i = 0; i < 50; ++i) EXPECT_EQ(unload("nobody").error_code(), grpc::StatusCode::NOT_FOUND);
  }
  // Until the load ends: its reader may come and go.
  void let_go(const std::future<grpc::StatusCode>& ended) {
    std::signal(SIGPIPE, SIG_IGN);
    while (ended.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) {
      const int end = ::open(pipe().c_str(), O_WRONLY | O_NONBLOCK);
      if (end < 0) continue;  // nobody reads at the moment
      [[maybe_unused]] const auto written = ::write(end, "{", 1);
      ::close(end);
    }
  }
};

TEST_F(WaitingLoadsTest, one_whose_call_is_cancelled_is_not_made) {
  Load held, cancelled;
  begin(held, "held");
  begin(cancelled, "one");
  cancelled.context.TryCancel();
  EXPECT_EQ(cancelled.ended.get_future().get(), grpc::StatusCode::CANCELLED);
  pass_time();
  auto ended = held.ended.get_future();
  let_go(ended);
  EXPECT_EQ(ended.get(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(load("last", "two").ok());
  EXPECT_EQ(models().models_size(), 4);
}

TEST_F(WaitingLoadsTest, a_drain_ends_them) {
  Load held, waiting;
  begin(held, "held");
  begin(waiting, "one");
  auto drained = std::async(std::launch::async, [this] { decode_server->drain(std::chrono::seconds(20)); });
  EXPECT_TRUE(eventually([this] { return refusal(request_to("base")).error_code() == grpc::StatusCode::UNAVAILABLE; }));
  auto ended = held.ended.get_future();
  let_go(ended);
  EXPECT_EQ(ended.get(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(waiting.ended.get_future().get(), grpc::StatusCode::UNAVAILABLE);
  drained.get();
}

// The step that its prompt is part of still reads the adapter.
TEST_F(AdaptersTest, a_request_may_be_cancelled_when_its_model_is_gone) {
  start_models([](DecodeConfig& config) { config.codec.mode = CodecMode::kOracle; });
  int cancelled_in_time = 0;  // on a busy machine it may be done before it can be cancelled
  for (int round = 0; cancelled_in_time < 8 && round < 40; ++round) {
    ASSERT_TRUE(load("gone", "two").ok());
    auto served = request_to("one", 1000), given_up = request_to("gone", 1000);
    served.set_max_tokens(100);
    given_up.set_max_tokens(900);
    auto other = std::async(std::launch::async, [&] { return complete(served); });
    grpc::ClientContext context;
    auto cancelled = std::async(std::launch::async, [&] {
      v1::CompleteResponse response;
      return stub->Complete(&context, given_up, &response).error_code();
    });
    EXPECT_TRUE(eventually([&] {
      return decode_server->counters().sequences == 2 ||
             cancelled.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    }));
    EXPECT_TRUE(unload("gone").ok());
    context.TryCancel();
    cancelled_in_time += cancelled.get() == grpc::StatusCode::CANCELLED ? 1 : 0;
    EXPECT_EQ(other.get().token_ids_size(), 100);
  }
  EXPECT_GT(cancelled_in_time, 0);
  expect_idle();
}

TEST_F(AdaptersTest, nobody_changes_models_where_the_configuration_does_not_say_so) {
  start_models([](DecodeConfig& config) { config.model_admin = false; });
  EXPECT_EQ(load("three", "one").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(unload("one").error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(AdaptersTest, versions_of_an_artifact_never_mix) {
  SCD_SKIP_ON_GPU();
  const auto plan = [&](int32_t exact) { return layer_by_layer(codec_model(base_model()).layers, exact); };
  const auto first = root() / "v1", same_encoder = root() / "v1_again", second = root() / "v2";
  write_rd_artifact(base_model(), identity("one"), first, plan(1));
  write_rd_artifact(base_model(), identity("one"), same_encoder, plan(1));
  write_rd_artifact(base_model(), identity("one"), second, plan(2));
  start_prefill([&](PrefillConfig& config) { config.codec.artifact = first; });
  start_models([&](DecodeConfig& config) {
    config.models = {{.name = "one", .directory = {}, .adapter = adapter("one"), .artifact = first}};
    config.codec.mode = CodecMode::kRd;
    config.prefix_cache.enabled = true;
  });
  EXPECT_EQ(complete(request_to("one")).finish().transfer().prefix_cached_tokens(), 0u);
  EXPECT_GT(complete(request_to("one")).finish().transfer().prefix_cached_tokens(), 0u);
  // Another decoder of the same codes: the stored codes serve it, the pages the first one made do not.
  ASSERT_TRUE(load("candidate", "one", false, same_encoder).ok());
  const v1::TransferAccount candidate = complete(request_to("candidate")).finish().transfer();
  EXPECT_EQ(candidate.prefix_cached_tokens(), 0u);
  EXPECT_EQ(candidate.cached_tokens(), candidate.handover_tokens());
  const grpc::Status none = load("codeless", "one");
  EXPECT_EQ(none.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(none.error_message(), HasSubstr("model 'codeless': artifact: codec.mode is rd"));
  // Other codes: refused as long as the prefill server has not got them.
  ASSERT_TRUE(load("one", "one", /*in_place=*/true, second).ok());
  const grpc::Status refused = refusal(request_to("one"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("encoder"));
  // The other version is served all the time.
  EXPECT_GT(complete(request_to("candidate")).finish().transfer().prefix_cached_tokens(), 0u);
  expect_idle();
}

TEST_F(AdaptersTest, during_a_rollout_each_version_is_served_by_the_prefill_server_that_has_it) {
  SCD_SKIP_ON_GPU();
  const int32_t layers = codec_model(base_model()).layers;
  const std::map<std::string, std::filesystem::path> artifacts{{"old", root() / "v1"}, {"new", root() / "v2"}};
  write_rd_artifact(base_model(), identity("one"), artifacts.at("old"), layer_by_layer(layers, 1));
  write_rd_artifact(base_model(), identity("one"), artifacts.at("new"), layer_by_layer(layers, 2));
  // More of the old ones than are ever asked for one prompt.
  std::map<std::string, std::set<std::string>> addresses;
  for (const std::string name : {"old", "old", "old", "old", "old", "old", "old", "old", "old", "new"}) {
    start_prefill([&](PrefillConfig& config) { config.codec.artifact = artifacts.at(name); });
    addresses[name].insert(prefill_servers.back()->address());
  }
  start_models([&](DecodeConfig& config) {
    config.models.clear();
    for (const auto& [name, artifact] : artifacts) {
      config.models.push_back({.name = name, .directory = {}, .adapter = adapter("one"), .artifact = artifact});
    }
    config.codec.mode = CodecMode::kRd;
  });
  for (uint32_t seed = 1; seed <= 3; ++seed) {
    for (const auto& [name, artifact] : artifacts) {
      const v1::TransferAccount account = complete(request_to(name, 300, seed)).finish().transfer();
      EXPECT_EQ(account.codec(), v1::CODEC_RD);
      EXPECT_TRUE(addresses[name].contains(account.prefill_endpoint())) << name;
      EXPECT_EQ(account.fallback_reason(), "");
    }
  }
  EXPECT_EQ(decode_server->counters().transfers_failed, 0u) << "so that none is ejected";
  EXPECT_EQ(decode_server->counters().transfers_started, 6u);
  expect_idle();
}

TEST_F(AdaptersTest, a_start_that_cannot_serve_a_model_names_it_and_its_field) {
  const auto why = [this](ServedModelOptions model) {
    try {
      start_decode([&](DecodeConfig& config) { config.models = {std::move(model)}; });
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("it started");
  };
  EXPECT_THAT(why({.name = "x", .directory = tuned_model()}), HasSubstr("model 'x': directory: "));
  EXPECT_THAT(why({.name = "x", .directory = {}, .adapter = root()}), HasSubstr("model 'x': adapter: "));
  const auto artifact_of_two = root() / "of_two";
  write_rd_artifact(base_model(), identity("two"), artifact_of_two,
                    layer_by_layer(codec_model(base_model()).layers, 1));
  EXPECT_THAT(why({.name = "x", .directory = {}, .adapter = adapter("one"), .artifact = artifact_of_two}),
              HasSubstr("model 'x': artifact: "));
  EXPECT_EQ(why({.name = "x", .directory = base_model(), .adapter = adapter("one"), .artifact = {}}), "it started");
}

}  // namespace
}  // namespace scd::testing
