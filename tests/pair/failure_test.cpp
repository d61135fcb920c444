// What goes wrong, and that it ends in an answer or a typed error and leaves nothing behind.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "pair.h"

namespace scd::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr size_t kCancellations = 7;  // of each kind
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr milliseconds kFreeAfterCancelling{1000};
#else
constexpr milliseconds kFreeAfterCancelling{100};
#endif

void no_fallback(DecodeConfig& config) { config.fallback.local_prefill = false; }

TEST_F(PairTest, bad_requests_get_a_status_that_says_what_is_wrong) {
  start();
  struct Case {
    std::function<void(v1::CompleteRequest&)> change;
    grpc::StatusCode code;
    std::string says;
  };
  const std::vector<Case> cases = {
      {[](auto& r) { r.clear_prompt(); }, grpc::StatusCode::INVALID_ARGUMENT, "prompt"},
      {[](auto& r) { r.set_text(""); }, grpc::StatusCode::INVALID_ARGUMENT, "text"},
      {[](auto& r) { r.set_text("\xff\xfe"); }, grpc::StatusCode::INVALID_ARGUMENT, "UTF-8"},
      {[](auto& r) { r.mutable_token_ids()->add_ids(320); }, grpc::StatusCode::INVALID_ARGUMENT, "320"},
      {[](auto& r) {
         r.mutable_token_ids()->add_ids(-5);
         r.set_echo(true);
       },
       grpc::StatusCode::INVALID_ARGUMENT, "-5"},
      {[](auto& r) { r.set_max_tokens(0); }, grpc::StatusCode::INVALID_ARGUMENT, "max_tokens"},
      {[](auto& r) { r.set_text(std::string(6000, 'a')); }, grpc::StatusCode::INVALID_ARGUMENT, "context"},
      {[](auto& r) { r.set_n(2); }, grpc::StatusCode::UNIMPLEMENTED, "n"},
      {[](auto& r) { r.set_model("another"); }, grpc::StatusCode::NOT_FOUND, "base"},
      {[](auto& r) { r.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_SCD); },
       grpc::StatusCode::FAILED_PRECONDITION, "artifact"},
  };
  for (const Case& each : cases) {
    auto request = greedy_request(50);
    each.change(request);
    v1::CompleteResponse response;
    const grpc::Status status = complete(request, response);
    EXPECT_EQ(status.error_code(), each.code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(each.says));
    const auto streamed = stream(request);
    EXPECT_EQ(streamed.status.error_code(), each.code);
  }
  complete(greedy_request(50));
  expect_idle();
}

TEST_F(PairTest, a_refused_request_is_not_echoed) {
  start();
  auto with_ids = greedy_request(50);
  with_ids.mutable_token_ids()->set_ids(49, -5);
  auto with_text = greedy_request(50);
  with_text.set_text("The quick brown fox");
  with_text.set_top_p(2);
  for (v1::CompleteRequest request : {with_ids, with_text}) {
    request.set_echo(true);
    v1::CompleteResponse response;
    EXPECT_EQ(complete(request, response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(response.text(), "");
    const auto streamed = stream(request);
    EXPECT_EQ(streamed.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(streamed.messages, 0);
  }
}

TEST_F(PairTest, an_unreachable_prefill_server_means_a_local_prefill_that_is_reported) {
  start_decode([](DecodeConfig& config) { config.prefill.endpoints = {"127.0.0.1:1"}; });
  const auto request = greedy_request(150);
  const auto response = complete(request);
  EXPECT_EQ(response.text(), complete_alone(request).text());
  EXPECT_EQ(response.finish().transfer().codec(), v1::CODEC_ORACLE);
  EXPECT_THAT(response.finish().transfer().fallback_reason(), HasSubstr("127.0.0.1:1"));
  EXPECT_EQ(decode_server->counters().local_fallbacks, 1u);
  expect_idle();
}

TEST_F(PairTest, without_fallback_an_unreachable_prefill_server_is_unavailable) {
  start_decode([](DecodeConfig& config) {
    config.prefill.endpoints = {"127.0.0.1:1"};
    no_fallback(config);
  });
  v1::CompleteResponse response;
  const grpc::Status status = complete(greedy_request(150), response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("127.0.0.1:1"));
  expect_idle();
}

TEST_F(PairTest, a_prompt_too_long_for_the_fallback_is_an_error) {
  start_decode([](DecodeConfig& config) {
    config.prefill.endpoints = {"127.0.0.1:1"};
    config.fallback.local_prefill_max_tokens = 100;
  });
  v1::CompleteResponse response;
  const grpc::Status status = complete(greedy_request(150), response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("local_prefill_max_tokens"));
  EXPECT_EQ(complete(greedy_request(90)).token_ids_size(), 12);
}

TEST_F(PairTest, another_prefill_server_is_asked_when_one_fails) {
  start_prefill();
  start_decode([](DecodeConfig& config) {
    config.prefill.endpoints.insert(config.prefill.endpoints.begin(), "127.0.0.1:1");
    no_fallback(config);
  });
  const auto request = greedy_request(150);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(complete(request).finish().transfer().codec(), v1::CODEC_RAW);
  }
  EXPECT_LE(decode_server->counters().other_endpoints, 1u);  // afterwards it is known and avoided
  EXPECT_EQ(decode_server->counters().local_fallbacks, 0u);
  expect_idle();
}

TEST_F(PairTest, a_prefill_server_that_dies_in_mid_transfer_costs_time_not_the_answer) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.0002; });
  start_decode();
  const auto request = greedy_request(600);
  v1::CompleteResponse response;
  grpc::Status status;
  std::thread client([&] { status = complete(request, response); });
  const bool in_transfer = wait_for_lease();
  prefill_servers.clear();
  client.join();
  ASSERT_TRUE(in_transfer);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.finish().transfer().fallback_reason(), HasSubstr("prefill server"));
  EXPECT_EQ(response.text(), complete_alone(request).text());
  expect_idle();
}

TEST_F(PairTest, a_data_plane_that_is_cut_is_noticed) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.0005; });
  start_decode(no_fallback);
  v1::CompleteResponse response;
  grpc::Status status;
  std::thread client([&] { status = complete(greedy_request(600), response); });
  const bool in_transfer = wait_for_lease();
  network.cut(prefill_servers.front()->data_plane_address());
  client.join();
  ASSERT_TRUE(in_transfer);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  network.restore(prefill_servers.front()->data_plane_address());
  EXPECT_EQ(complete(greedy_request(600)).token_ids_size(), 12);
  expect_idle();
}

TEST_F(PairTest, corrupted_codes_never_reach_the_answer) {
  start();
  network.set_faults([](const MessageHeader& header) {
    LoopbackFault fault;
    if (header.sequence == 3) fault.flip_payload_bit = 1234;
    return fault;
  });
  const auto request = greedy_request(200);
  const auto response = complete(request);
  EXPECT_THAT(response.finish().transfer().fallback_reason(), HasSubstr("CRC"));
  EXPECT_EQ(response.text(), complete_alone(request).text());
  expect_idle();
}

TEST_F(PairTest, corrupted_codes_without_fallback_are_data_loss) {
  start(no_fallback);
  network.set_faults([](const MessageHeader& header) {
    LoopbackFault fault;
    if (header.sequence == 0) fault.flip_payload_bit = 77;
    return fault;
  });
  v1::CompleteResponse response;
  EXPECT_EQ(complete(greedy_request(200), response).error_code(), grpc::StatusCode::DATA_LOSS);
  network.set_faults({});
  complete(greedy_request(200));
  expect_idle();
}

TEST_F(PairTest, messages_out_of_order_give_the_same_text) {
  start();
  network.set_faults([](const MessageHeader& header) {
    LoopbackFault fault;
    if (header.sequence % 3 == 0) fault.delay = milliseconds(4);
    return fault;
  });
  const auto request = greedy_request(300);
  const auto response = complete(request);
  EXPECT_EQ(response.finish().transfer().fallback_reason(), "");
  EXPECT_EQ(response.text(), complete_alone(request).text());
  expect_idle();
}

TEST_F(PairTest, a_lost_message_is_noticed_by_the_silence_after_it) {
  start([](DecodeConfig& config) { config.prefill.silence_timeout = milliseconds(200); });
  network.set_faults([](const MessageHeader& header) {
    LoopbackFault fault;
    fault.drop = header.sequence == 5;
    return fault;
  });
  const auto request = greedy_request(200);
  const auto response = complete(request);
  EXPECT_THAT(response.finish().transfer().fallback_reason(), HasSubstr("200 ms"));
  EXPECT_EQ(response.text(), complete_alone(request).text());
  expect_idle();
}

TEST_F(PairTest, models_that_do_not_fit_are_refused_by_what_differs) {
  start_prefill([this](PrefillConfig& config) { config.model.directory = make("wide", "small", 2, 0); });
  start_decode();
  v1::CompleteResponse response;
  const grpc::Status status = complete(greedy_request(150), response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("tokenizer"));
  EXPECT_EQ(decode_server->counters().local_fallbacks, 0u);
  expect_idle();
}

TEST_F(PairTest, cancelling_frees_both_sides_and_delays_nobody) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.0002; });
  start_decode();
  const auto messages_sent = [this] { return prefill_servers.front()->counters().transport.messages_sent; };
  for (const bool while_generating : {false, true}) {
    std::vector<std::chrono::steady_clock::duration> times;
    for (uint32_t i = 0; i < kCancellations; ++i) {
      grpc::ClientContext context;
      auto request = greedy_request(while_generating ? 20 : 600, i);
      request.set_max_tokens(1500);
      const uint64_t sent = messages_sent();
      const auto reader = stub->CompleteStream(&context, request);
      v1::CompleteStreamResponse message;
      if (while_generating) {
        ASSERT_TRUE(reader->Read(&message));
        ASSERT_TRUE(reader->Read(&message));
      } else {
        ASSERT_TRUE(eventually([&] { return messages_sent() > sent; }));  // the next one is long in coming
      }
      context.TryCancel();
      times.push_back(time_until_idle());
      EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
    }
    std::ranges::sort(times);
    EXPECT_LT(times[kCancellations / 2], kFreeAfterCancelling);
    EXPECT_LT(times.back(), 10 * kFreeAfterCancelling);  // a busy machine may keep one waiting
    expect_idle();
  }
  EXPECT_TRUE(eventually([this] { return decode_server->counters().cancelled == 2 * kCancellations; }));
  EXPECT_EQ(complete(greedy_request(30)).token_ids_size(), 12);
}

TEST_F(PairTest, a_deadline_ends_the_request_wherever_it_is) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.001; });
  start_decode();
  v1::CompleteResponse response;
  EXPECT_EQ(complete(greedy_request(600), response, milliseconds(150)).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  expect_idle();
}

TEST_F(PairTest, the_servers_own_limit_is_a_deadline_too) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.001; });
  start_decode([](DecodeConfig& config) { config.limits.request_timeout = milliseconds(150); });
  v1::CompleteResponse response;
  const grpc::Status status = complete(greedy_request(600), response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << status.error_message();
  expect_idle();
}

TEST_F(PairTest, a_full_queue_refuses_and_serves_on) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.01; });
  start_decode([](DecodeConfig& config) {
    config.limits.max_running = 1;
    config.limits.max_waiting = 1;
  });
  std::atomic<int> served{0}, refused{0};
  std::vector<std::thread> clients;
  for (uint32_t i = 0; i < 8; ++i) {
    clients.emplace_back([&, i] {
      v1::CompleteResponse response;
      const grpc::Status status = complete(greedy_request(200, i), response);
      if (status.ok()) ++served;
      if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) ++refused;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served + refused, 8);
  EXPECT_GE(served, 2);  // one runs, one waits
  EXPECT_EQ(decode_server->counters().refused, static_cast<uint64_t>(refused));
  expect_idle();
}

TEST_F(PairTest, a_request_without_staging_slots_goes_on_when_another_gives_its_back) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.0002; });
  start_decode([](DecodeConfig& config) {
    config.transport.slots = static_cast<size_t>(config.prefill.credit_messages);
    no_fallback(config);
  });
  grpc::ClientContext context;
  const auto first = stub->CompleteStream(&context, greedy_request(600));
  ASSERT_TRUE(wait_for_lease());
  v1::CompleteResponse response;
  grpc::Status status;
  std::thread client([&] { status = complete(greedy_request(48, 2), response); });
  const bool waits = eventually([this] { return decode_server->counters().transfers == 2; });
  const auto given_back_at = std::chrono::steady_clock::now();
  context.TryCancel();
  client.join();
  ASSERT_TRUE(waits);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.finish().transfer().codec(), v1::CODEC_RAW);
  EXPECT_LT(std::chrono::steady_clock::now() - given_back_at, std::chrono::seconds(5));
  EXPECT_EQ(first->Finish().error_code(), grpc::StatusCode::CANCELLED);
  expect_idle();
}

TEST_F(PairTest, requests_take_turns_with_the_staging_slots_of_one) {
  start([](DecodeConfig& config) {
    config.transport.slots = static_cast<size_t>(config.prefill.credit_messages);
    no_fallback(config);
  });
  std::vector<std::thread> clients;
  std::atomic<int> served{0};
  for (uint32_t i = 0; i < 6; ++i) {
    clients.emplace_back([&, i] {
      v1::CompleteResponse response;
      const bool ok = complete(greedy_request(200, i), response).ok();
      if (ok && response.finish().transfer().codec() == v1::CODEC_RAW) ++served;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served, 6);
  EXPECT_EQ(decode_server->counters().transfers_failed, 0u);
  expect_idle();
}

TEST_F(PairTest, draining_finishes_what_runs_and_refuses_what_comes) {
  start();
  auto request = greedy_request(100);
  request.set_max_tokens(300);
  grpc::ClientContext context;
  const auto reader = stub->CompleteStream(&context, request);
  v1::CompleteStreamResponse message;
  ASSERT_TRUE(reader->Read(&message));
  size_t ended = 99;
  std::thread drain([&] { ended = decode_server->drain(std::chrono::seconds(20)); });
  int tokens = 0;
  while (reader->Read(&message)) tokens += message.delta().token_ids_size();
  const grpc::Status status = reader->Finish();
  EXPECT_TRUE(status.ok()) << status.error_code() << " " << status.error_message();
  EXPECT_EQ(tokens, 300);
  drain.join();
  EXPECT_EQ(ended, 0u);
  v1::CompleteResponse response;
  EXPECT_EQ(complete(greedy_request(50), response).error_code(), grpc::StatusCode::UNAVAILABLE);
  expect_idle();
}

}  // namespace
}  // namespace scd::testing
