// What the pair answers: the same as the consumer alone, however it is asked.
#include <thread>

#include "pair.h"

namespace scd::testing {
namespace {

TEST_F(PairTest, raw_codes_of_the_same_model_give_the_consumers_own_text) {
  start();
  for (const int tokens : {5, 17, 40, 64, 100, 300}) {
    const auto request = greedy_request(tokens, static_cast<uint32_t>(tokens));
    const auto alone = complete_alone(request);
    const auto paired = complete(request);
    EXPECT_EQ(paired.text(), alone.text()) << tokens;
    EXPECT_EQ(paired.token_ids_size(), 12);
    EXPECT_EQ(paired.finish().reason(), v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(paired.finish().usage().prompt_tokens(), static_cast<uint32_t>(tokens));
    EXPECT_EQ(paired.finish().transfer().fallback_reason(), "");
    EXPECT_EQ(paired.finish().transfer().codec(), tokens < 48 ? v1::CODEC_ORACLE : v1::CODEC_RAW);
  }
  expect_idle();
}

TEST_F(PairTest, codecs_without_calibration_answer_each_by_its_bytes) {
  start();
  auto request = greedy_request(300);
  request.set_logprobs(5);
  const auto alone = complete_alone(request);
  struct Case {
    v1::Codec codec;
    double most_bytes;  // of raw's
    double tolerance;   // of the first token's log-probability
  };
  double raw_bytes = 0;
  for (const auto& [codec, most_bytes, tolerance] :
       {Case{v1::CODEC_RAW, 1.0, 0.02}, Case{v1::CODEC_LOSSLESS, 0.8, 0.02}, Case{v1::CODEC_INT8, 0.7, 0.05},
        Case{v1::CODEC_INT4, 0.5, 0.5}}) {
    request.mutable_codec()->mutable_choice()->set_codec(codec);
    const auto coded = complete(request);
    const v1::TransferAccount& transfer = coded.finish().transfer();
    EXPECT_EQ(transfer.codec(), codec);
    EXPECT_EQ(transfer.fallback_reason(), "");
    if (codec == v1::CODEC_RAW) raw_bytes = static_cast<double>(transfer.wire_bytes());
    EXPECT_LE(static_cast<double>(transfer.wire_bytes()), most_bytes * raw_bytes) << v1::Codec_Name(codec);
    EXPECT_NEAR(coded.logprobs(0).top(0).logprob(), alone.logprobs(0).top(0).logprob(), tolerance)
        << v1::Codec_Name(codec);
  }
  expect_idle();
}

TEST_F(PairTest, sinks_and_layer_0_may_come_as_codes_or_be_computed) {
  start_prefill();
  const auto request = greedy_request(200);
  std::vector<std::string> texts;
  for (const bool exact_layer0 : {false, true}) {
    for (const int sinks : {0, 16, 48}) {
      start_decode([&](DecodeConfig& config) {
        config.codec.exact_layer0 = exact_layer0;
        config.codec.sinks = sinks;
      });
      const auto response = complete(request);
      EXPECT_EQ(response.finish().transfer().codec(), v1::CODEC_RAW);
      EXPECT_EQ(response.finish().transfer().handover_tokens(), 176u);
      texts.push_back(response.text());
    }
  }
  for (const std::string& text : texts) EXPECT_EQ(text, texts.front());
}

TEST_F(PairTest, a_stream_says_what_a_unary_call_says) {
  start();
  auto request = greedy_request(150);
  request.set_logprobs(3);
  const auto at_once = complete(request);
  const auto streamed = stream(request);
  ASSERT_TRUE(streamed.status.ok());
  EXPECT_EQ(streamed.joined.text(), at_once.text());
  EXPECT_EQ(streamed.messages, 14);  // prompt, 12 tokens, finish
  EXPECT_EQ(streamed.prompt.prompt_tokens(), 150u);
  EXPECT_EQ(streamed.prompt.codec().codec(), v1::CODEC_RAW);
  ASSERT_EQ(streamed.joined.logprobs_size(), 12);
  ASSERT_EQ(at_once.logprobs_size(), 12);
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(streamed.joined.logprobs(i).chosen().token_id(), at_once.token_ids(i));
    ASSERT_EQ(at_once.logprobs(i).top_size(), 3);
    EXPECT_EQ(at_once.logprobs(i).top(0).token_id(), at_once.token_ids(i));  // greedy
    EXPECT_LE(at_once.logprobs(i).chosen().logprob(), 0.0f);
  }
}

// Others run before, not beside it: how many rows a step has decides a row's last bits, and those between two tokens.
TEST_F(PairTest, the_same_seed_gives_the_same_text_whatever_else_ran) {
  SCD_SKIP_ON_GPU();
  start();
  auto request = greedy_request(120);
  request.set_temperature(1.0f);
  request.set_top_p(0.95f);
  request.set_max_tokens(40);
  request.set_seed(99);
  request.set_skip_reading_prefix_cache(true);
  const std::string expected = complete(request).text();
  std::vector<std::thread> others;
  for (uint32_t i = 0; i < 3; ++i) others.emplace_back([this, i] { complete(greedy_request(130, 50 + i)); });
  for (std::thread& other : others) other.join();
  EXPECT_EQ(complete(request).text(), expected);
  request.set_seed(100);
  EXPECT_NE(complete(request).text(), expected);
}

TEST_F(PairTest, a_stop_string_ends_the_text_before_it) {
  start();
  auto request = greedy_request(150, 3);
  request.set_max_tokens(30);
  request.set_temperature(1.0f);
  request.set_seed(5);
  const std::string whole = complete(request).text();
  const size_t middle = whole.size() / 2;
  size_t begin = middle, end = middle + 3;  // of whole characters
  while (begin > 0 && (whole[begin] & 0xC0) == 0x80) --begin;
  while (end < whole.size() && (whole[end] & 0xC0) == 0x80) ++end;
  const std::string stop = whole.substr(begin, end - begin);
  request.add_stop(stop);
  const auto stopped = stream(request);
  ASSERT_TRUE(stopped.status.ok());
  EXPECT_EQ(stopped.joined.text(), whole.substr(0, whole.find(stop)));
  EXPECT_EQ(stopped.joined.finish().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(stopped.joined.finish().stopped_by(), stop);
}

TEST_F(PairTest, text_prompts_are_tokenised_and_echoed_on_request) {
  start();
  v1::CompleteRequest request = greedy_request(1);
  request.set_text("The quick brown fox jumps over the lazy dog, again and again, until it is tired of it.");
  const auto plain = complete(request);
  request.set_echo(true);
  EXPECT_EQ(complete(request).text(), request.text() + plain.text());
  EXPECT_EQ(stream(request).joined.text(), request.text() + plain.text());
}

TEST_F(PairTest, stored_codes_serve_the_next_request_with_the_same_prefix) {
  start();
  const auto request = greedy_request(300);
  const auto first = complete(request);
  EXPECT_EQ(first.finish().transfer().cached_tokens(), 0u);
  const auto second = complete(request);
  EXPECT_GE(second.finish().transfer().cached_tokens(), 256u);
  EXPECT_EQ(second.finish().usage().cached_tokens(), second.finish().transfer().cached_tokens());
  EXPECT_EQ(second.text(), first.text());
  // Another question about the same context.
  auto question = request;
  for (int i = 290; i < 300; ++i) question.mutable_token_ids()->set_ids(i, 5);
  const auto other = complete(question);
  EXPECT_GE(other.finish().transfer().cached_tokens(), 256u);
  EXPECT_EQ(other.text(), complete_alone(question).text());
  // Not for those with another salt.
  auto salted = request;
  salted.set_cache_salt("mine");
  EXPECT_EQ(complete(salted).finish().transfer().cached_tokens(), 0u);
}

TEST_F(PairTest, concurrent_requests_are_answered_as_one_by_one) {
  start();
  constexpr int kRequests = 16;
  std::vector<std::string> expected(kRequests), answers(kRequests);
  auto request_of = [](int i) { return greedy_request(40 + 17 * i, static_cast<uint32_t>(i)); };
  for (int i = 0; i < kRequests; ++i) expected[static_cast<size_t>(i)] = complete_alone(request_of(i)).text();
  std::vector<std::thread> clients;
  for (int i = 0; i < kRequests; ++i) {
    clients.emplace_back([&, i] { answers[static_cast<size_t>(i)] = complete(request_of(i)).text(); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(answers, expected);
  expect_idle();
}

TEST_F(PairTest, the_account_adds_up_and_shows_what_overlapped) {
  start();
  const auto response = complete(greedy_request(400));
  const v1::TransferAccount& account = response.finish().transfer();
  const double sum = account.queue_ms() + account.prefill_ms() + account.encode_ms() + account.wire_ms() +
                     account.rebuild_ms() + account.suffix_ms() + account.first_step_ms() + account.orchestration_ms();
  EXPECT_NEAR(sum, account.ttft_ms(), 1e-6 + 1e-9 * account.ttft_ms());
  EXPECT_GT(account.wire_bytes(), 0u);
  EXPECT_EQ(account.wire_messages(), 3u * 6);  // layers 1 to 3, chunks of 64 up to token 384
  EXPECT_EQ(account.handover_tokens(), 384u);
  EXPECT_NEAR(account.ratio_to_bf16(), 4.0 / 3 * 384 / 368, 0.02);  // neither layer 0 nor the sinks are sent
  std::set<v1::Part> parts;
  int64_t before = 0;
  for (const v1::Span& span : account.timeline()) {
    parts.insert(span.part());
    EXPECT_LE(span.start_us(), span.end_us());
    EXPECT_GE(span.start_us(), before);
    before = span.start_us();
  }
  for (const v1::Part part : {v1::PART_QUEUE, v1::PART_PREFILL, v1::PART_ENCODE, v1::PART_WIRE, v1::PART_REBUILD,
                              v1::PART_SUFFIX, v1::PART_FIRST_STEP}) {
    EXPECT_TRUE(parts.contains(part)) << v1::Part_Name(part);
  }
}

TEST_F(PairTest, exact_is_raw_over_an_unknown_link_for_one_model_and_local_for_two) {
  SCD_SKIP_ON_GPU();
  start();
  auto request = greedy_request(200);
  request.mutable_codec()->set_exact(true);
  const auto same = complete(request);
  EXPECT_EQ(same.finish().transfer().codec(), v1::CODEC_RAW);
  EXPECT_EQ(same.text(), complete_alone(request).text());

  start_decode([this](DecodeConfig& config) { config.model.directory = tuned_model(); });
  const auto other = complete(request);
  EXPECT_EQ(other.finish().transfer().codec(), v1::CODEC_ORACLE);
  EXPECT_EQ(other.finish().transfer().fallback_reason(), "");
  EXPECT_EQ(other.text(), complete_alone(request).text());
  EXPECT_EQ(decode_server->counters().local_fallbacks, 0u);
  expect_idle();
}

TEST_F(PairTest, says_what_it_serves) {
  start();
  complete(greedy_request(100));
  grpc::ClientContext list, info;
  v1::ListModelsResponse models;
  ASSERT_TRUE(stub->ListModels(&list, {}, &models).ok());
  ASSERT_EQ(models.models_size(), 1);
  EXPECT_EQ(models.models(0).name(), "base");
  EXPECT_EQ(models.models(0).context_length(), 2048u);
  EXPECT_EQ(models.models(0).fingerprint().weights().size(), 64u);
  v1::GetServerInfoResponse server;
  ASSERT_TRUE(stub->GetServerInfo(&info, {}, &server).ok());
  EXPECT_EQ(server.codec().codec(), v1::CODEC_RAW);
  EXPECT_EQ(server.kv_pages(), 1024u);
  ASSERT_EQ(server.prefill_endpoints_size(), 1);
  EXPECT_TRUE(server.prefill_endpoints(0).healthy()) << server.prefill_endpoints(0).reason();
}

}  // namespace
}  // namespace scd::testing
