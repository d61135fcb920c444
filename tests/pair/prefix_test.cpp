// What the decode server keeps of finished requests: answers stay the same, less is computed and sent, and nobody is
// served a state that is coarser than asked for.
#include <map>
#include <string>

#include "rd_pair.h"

namespace scd::testing {
namespace {

void enable(DecodeConfig& config) { config.prefix_cache.enabled = true; }

void append(v1::CompleteRequest& request, int tokens, uint32_t seed) {
  const v1::CompleteRequest more = greedy_request(tokens, seed);
  request.mutable_token_ids()->mutable_ids()->Add(more.token_ids().ids().begin(), more.token_ids().ids().end());
}

void name(v1::CompleteRequest& request, v1::Codec codec, uint32_t level = 0) {
  request.mutable_codec()->mutable_choice()->set_codec(codec);
  request.mutable_codec()->mutable_choice()->set_level(level);
}

class PrefixTest : public RdPairTest {
 protected:
  // The same request, nothing reused.
  v1::CompleteResponse complete_afresh(v1::CompleteRequest request) {
    request.set_skip_reading_prefix_cache(true);
    return complete(request);
  }
};

TEST_F(PrefixTest, the_same_prompt_again_needs_no_transfer) {
  SCD_SKIP_ON_GPU();
  start(enable);
  const auto request = greedy_request(300);
  const auto first = complete(request);
  EXPECT_EQ(first.finish().transfer().prefix_cached_tokens(), 0u);
  EXPECT_GT(first.finish().transfer().wire_bytes(), 0u);
  const auto second = stream(request);
  ASSERT_TRUE(second.status.ok());
  const v1::TransferAccount& account = second.joined.finish().transfer();
  EXPECT_EQ(account.prefix_cached_tokens(), 288u);  // whole pages, and at least one token is computed
  EXPECT_EQ(account.handover_tokens(), 288u);
  EXPECT_EQ(account.cached_tokens(), 0u);  // of codes: nobody was asked
  EXPECT_EQ(account.wire_bytes(), 0u);
  EXPECT_EQ(account.codec(), v1::CODEC_ORACLE);
  EXPECT_EQ(second.prompt.cached_tokens(), 288u);
  EXPECT_EQ(second.prompt.prefix_cached_tokens(), 288u);
  EXPECT_EQ(second.joined.finish().usage().cached_tokens(), 288u);
  EXPECT_EQ(second.joined.text(), first.text());
  EXPECT_EQ(decode_server->counters().transfers_started, 1u);
  // What keeps the producer's bits is what this model computes.
  EXPECT_EQ(complete_alone(request).finish().transfer().prefix_cached_tokens(), 288u);
  expect_idle();
}

TEST_F(PrefixTest, a_shared_prefix_shortens_what_is_computed_and_sent) {
  SCD_SKIP_ON_GPU();
  start(enable);
  auto context = greedy_request(200);
  complete(context);
  for (const int more : {20, 100, 300}) {
    auto request = context;
    append(request, more, static_cast<uint32_t>(more));
    const auto afresh = complete_afresh(request);
    start_decode(enable);  // which has not seen the longer prompt
    complete(context);
    const auto reused = complete(request);
    const v1::TransferAccount& account = reused.finish().transfer();
    EXPECT_EQ(account.prefix_cached_tokens(), 192u) << more;
    EXPECT_EQ(reused.text(), afresh.text()) << more;
    if (more <= 100) {
      EXPECT_EQ(account.wire_bytes(), 0u) << more;
    } else {
      EXPECT_GT(account.wire_bytes(), 0u);
      // Chunks of 64: the third one ends with what is here.
      const uint32_t chunks_sent = (account.handover_tokens() + 63) / 64 - 3;
      EXPECT_EQ(account.wire_messages(), 3 * chunks_sent);
      EXPECT_LT(account.wire_bytes(), afresh.finish().transfer().wire_bytes());
    }
  }
  expect_idle();
}

// A prefix that ends within a chunk of codes, and the prompt's own answer before the next question.
TEST_F(PrefixTest, a_conversation_goes_on_from_its_own_answer) {
  SCD_SKIP_ON_GPU();
  start([](DecodeConfig& config) {
    enable(config);
    config.prefix_cache.max_uncached_tail_tokens = 0;
  });
  auto request = greedy_request(90);
  for (const int turn : {1, 2, 3}) {
    const auto answer = complete(request);
    EXPECT_EQ(answer.text(), complete_afresh(request).text()) << turn;
    const auto before = static_cast<uint32_t>(request.token_ids().ids_size());
    request.mutable_token_ids()->mutable_ids()->Add(answer.token_ids().begin(), answer.token_ids().end());
    append(request, 100, static_cast<uint32_t>(turn));
    const auto next = complete(request);
    EXPECT_EQ(next.finish().transfer().prefix_cached_tokens(), (before + 11) / 16 * 16)
        << turn;  // the last token is not fed
    EXPECT_GT(next.finish().transfer().wire_bytes(), 0u);
  }
  expect_idle();
}

// Later tokens are decoded with their own anchors and attend to the pages of the earlier ones.
TEST_F(PrefixTest, native_spans_go_on_over_a_reused_prefix) {
  SCD_SKIP_ON_GPU();
  const int32_t layers = codec_model(base_model()).layers;
  const std::vector<LayerPlan> plans{layer_by_layer(layers, 1),
                                     {1, {{1, layers - 1, true}}},
                                     {1, {{1, 1}, {2, 1, true}, {3, layers - 3}}},
                                     {1, {{1, 1, true}, {2, 1}, {3, layers - 3, true}}}};
  for (const LayerPlan& plan : plans) {
    write_artifact_of(plan);
    start_rd_prefill();
    start_rd([](DecodeConfig& config) {
      enable(config);
      config.prefix_cache.max_uncached_tail_tokens = 0;
    });
    auto request = greedy_request(100);
    name(request, v1::CODEC_RD);
    complete(request);
    append(request, 150, 9);
    request.set_logprobs(3);
    const auto reused = complete(request);
    EXPECT_EQ(reused.finish().transfer().prefix_cached_tokens(), 96u) << to_string(plan);
    EXPECT_EQ(reused.finish().transfer().fallback_reason(), "") << to_string(plan);
    EXPECT_GT(reused.finish().transfer().wire_bytes(), 0u) << to_string(plan);
    const auto afresh = complete_afresh(request);
    EXPECT_EQ(reused.text(), afresh.text()) << to_string(plan);
    EXPECT_NEAR(reused.logprobs(0).top(0).logprob(), afresh.logprobs(0).top(0).logprob(), 0.02) << to_string(plan);
    EXPECT_LT(reused.finish().transfer().wire_bytes(), afresh.finish().transfer().wire_bytes()) << to_string(plan);
    expect_idle();
    prefill_servers.clear();
  }
}

TEST_F(PrefixTest, a_rebuilt_prefix_serves_nobody_who_wants_better) {
  start_rd_prefill();
  start_rd(enable);
  auto request = greedy_request(300);
  const auto held_with = [&](v1::Codec codec, uint32_t level) {
    name(request, codec, level);
    const v1::TransferAccount account = complete(request).finish().transfer();
    EXPECT_EQ(account.fallback_reason(), "");
    return account;
  };
  EXPECT_EQ(held_with(v1::CODEC_RD, 1).prefix_cached_tokens(), 0u);
  const auto same = held_with(v1::CODEC_RD, 1);
  EXPECT_EQ(same.prefix_cached_tokens(), 288u);
  EXPECT_EQ(same.wire_bytes(), 0u);
  EXPECT_EQ(same.codec(), v1::CODEC_RD);  // what it was rebuilt from
  EXPECT_EQ(same.level(), 1u);
  EXPECT_EQ(held_with(v1::CODEC_RD, 2).level(), 1u);  // a finer one will do
  // The sinks were computed here.
  const auto finer = held_with(v1::CODEC_RD, 0);
  EXPECT_EQ(finer.prefix_cached_tokens(), 16u);
  EXPECT_GT(finer.wire_bytes(), 0u);
  auto exact = request;
  exact.mutable_codec()->set_exact(true);
  const auto bits = complete(exact).finish().transfer();
  EXPECT_EQ(bits.prefix_cached_tokens(), 16u);
  EXPECT_TRUE(bits.codec() == v1::CODEC_RAW || bits.codec() == v1::CODEC_LOSSLESS);
  // From now on the exact state is here, for everybody.
  EXPECT_EQ(complete(exact).finish().transfer().prefix_cached_tokens(), 288u);
  EXPECT_EQ(held_with(v1::CODEC_RD, 0).codec(), v1::CODEC_ORACLE);
  expect_idle();
}

TEST_F(PrefixTest, what_is_computed_here_over_a_rebuilt_prefix_is_as_lossy) {
  start_rd_prefill();
  start_rd(enable);
  auto request = greedy_request(100);
  name(request, v1::CODEC_RD, 1);
  complete(request);
  append(request, 60, 2);  // so little is computed here
  const auto tail = complete(request).finish().transfer();
  EXPECT_EQ(tail.prefix_cached_tokens(), 96u);
  EXPECT_EQ(tail.wire_bytes(), 0u);
  EXPECT_EQ(tail.codec(), v1::CODEC_RD);
  request.mutable_codec()->set_exact(true);
  EXPECT_EQ(complete(request).finish().transfer().prefix_cached_tokens(), 16u);
}

// Codes of another model's cache are nothing to go on with, whoever sent them.
TEST_F(PrefixTest, codes_without_an_artifact_are_kept_only_where_they_keep_the_bits) {
  start_prefill();
  start_decode([this](DecodeConfig& config) {
    enable(config);
    config.model.directory = tuned_model();
  });
  const auto request = greedy_request(200);
  complete(request);
  EXPECT_EQ(complete(request).finish().transfer().prefix_cached_tokens(), 0u);
  EXPECT_EQ(complete_alone(request).finish().transfer().prefix_cached_tokens(), 0u);
  EXPECT_EQ(complete_alone(request).finish().transfer().prefix_cached_tokens(), 192u);
  EXPECT_EQ(complete(request).finish().transfer().prefix_cached_tokens(), 192u);  // better than it asked for
  expect_idle();
}

TEST_F(PrefixTest, salts_share_nothing) {
  start(enable);
  auto request = greedy_request(200);
  request.set_cache_salt("mine");
  complete(request);
  request.set_cache_salt("yours");
  EXPECT_EQ(complete(request).finish().transfer().prefix_cached_tokens(), 0u);
  request.set_cache_salt("mine");
  EXPECT_EQ(complete(request).finish().transfer().prefix_cached_tokens(), 192u);
}

TEST_F(PrefixTest, kept_pages_make_room_for_requests) {
  start([](DecodeConfig& config) {
    enable(config);
    config.kv_cache.pages = 24;
  });
  for (uint32_t i = 0; i < 6; ++i) {
    const auto request = greedy_request(250, i);  // 17 pages of 24
    EXPECT_EQ(complete(request).text(), complete_alone(request).text()) << i;
  }
  const ServerCounters counters = decode_server->counters();
  EXPECT_GT(counters.pages_kept, 0);
  EXPECT_GT(counters.prefix_pages_evicted, 0u);
  EXPECT_GT(counters.prefix_tokens_found, 0u);
  EXPECT_GT(counters.prefix_tokens_looked_up, counters.prefix_tokens_found);
  expect_idle();
}

TEST_F(PrefixTest, metrics_count_what_was_looked_for_and_found) {
  start(enable);
  const auto request = greedy_request(100);
  complete(request);
  complete(request);
  std::map<std::string, double> values;
  for (const MetricSnapshot& metric : decode_server->metrics().snapshot()) {
    if (!metric.samples.empty()) values[metric.name.name] = metric.samples.front().value;
  }
  EXPECT_EQ(values["scd_prefix_cache_queries_total"], 198);
  EXPECT_EQ(values["scd_prefix_cache_hits_total"], 96);
  EXPECT_EQ(values["scd_handover_tokens_total"], 80);  // of the first one
  EXPECT_EQ(values["scd_kv_cache_pages_kept"], 6);
  EXPECT_EQ(values["scd_num_preemptions_total"], 0);
}

TEST_F(PrefixTest, nothing_is_kept_where_it_is_switched_off) {
  start();
  const auto request = greedy_request(100);
  complete(request);
  complete(request);
  EXPECT_EQ(decode_server->counters().pages_kept, 0);
  EXPECT_EQ(decode_server->counters().prefix_tokens_found, 0u);
}

}  // namespace
}  // namespace scd::testing
