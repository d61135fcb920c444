#include "decode_server/receive/receiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <utility>

#include "tests/unit/decode_server/receiver_fixture.h"

namespace scd {
namespace {

using std::chrono::seconds;
using testing::failure_event;
using ::testing::HasSubstr;
using testing::next;
using testing::Producer;
using testing::ReceiverTest;
using testing::until_cancelled;

TEST_F(ReceiverTest, a_second_acceptance_is_data_loss) {
  const Failure failure = failure_after([this](const auto& start) { return producer_->acceptance(start); });
  EXPECT_EQ(failure.code, ErrorCode::kDataLoss);
  EXPECT_THAT(failure.message, HasSubstr("accepted the request twice"));
  EXPECT_THAT(failure.message, HasSubstr(producer_->address()));
}

TEST_F(ReceiverTest, chunks_that_no_prefill_server_makes_are_data_loss) {
  for (const uint32_t tokens : {0U, 1U, 24U, 4'294'967'295U}) {
    serve([&](const v1::StartPrefill& start, Producer::Stream& stream) {
      v1::PrefillEvent event = producer_->acceptance(start);
      event.mutable_accepted()->set_chunk_tokens(tokens);
      stream.Write(event);
      return until_cancelled(stream);
    });
    start();
    const auto failure = next(compute_.failed);
    ASSERT_TRUE(failure.has_value());
    EXPECT_EQ(failure->code, ErrorCode::kDataLoss);
    EXPECT_THAT(failure->message, HasSubstr("chunks of " + std::to_string(tokens) + " tokens"));
    receiver_.reset();
  }
}

TEST_F(ReceiverTest, what_a_prefill_server_refuses_is_no_sign_of_its_health) {
  struct Case {
    grpc::StatusCode code;
    bool healthy;
  };
  for (const Case& each : {Case{grpc::StatusCode::RESOURCE_EXHAUSTED, true},
                           {grpc::StatusCode::INVALID_ARGUMENT, true},
                           {grpc::StatusCode::FAILED_PRECONDITION, true},
                           {grpc::StatusCode::UNAVAILABLE, false},
                           {grpc::StatusCode::INTERNAL, false},
                           {grpc::StatusCode::UNKNOWN, false}}) {
    failure_after([&](const auto&) { return failure_event(static_cast<uint32_t>(each.code), "no"); });
    EXPECT_EQ(receiver_->endpoints().at(0).healthy, each.healthy) << each.code;
    receiver_.reset();
  }
}

TEST_F(ReceiverTest, a_failure_with_the_code_of_success_is_a_failure) {
  const Failure failure = failure_after([](const auto&) { return failure_event(0, "all is well"); });
  EXPECT_EQ(failure.code, ErrorCode::kUnknown);
  EXPECT_THAT(failure.message, HasSubstr("all is well"));
}

TEST_F(ReceiverTest, a_failure_with_a_code_that_is_none_is_a_failure) {
  EXPECT_EQ(failure_after([](const auto&) { return failure_event(4'000'000'000U, "?"); }).code, ErrorCode::kUnknown);
}

TEST_F(ReceiverTest, finishing_what_was_not_accepted_is_data_loss) {
  serve([](const v1::StartPrefill&, Producer::Stream& stream) {
    v1::PrefillEvent event;
    event.mutable_finished();
    stream.Write(event);
    return until_cancelled(stream);
  });
  start();
  const auto failure = next(compute_.failed);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->code, ErrorCode::kDataLoss);
}

TEST_F(ReceiverTest, a_stream_that_ends_well_before_the_codes_is_unavailable) {
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    return grpc::Status::OK;
  });
  start();
  const auto failure = next(compute_.failed);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->code, ErrorCode::kUnavailable);
}

// A message that is still read when its request ends keeps its slot, which then comes free without an event.
TEST_F(ReceiverTest, a_request_that_waits_for_slots_begins_when_the_last_reader_lets_go) {
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    producer_->send_message(start, 0);
    return until_cancelled(stream);
  });
  const uint64_t first = start();
  ASSERT_TRUE(next(compute_.accepted).has_value());
  auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  const uint64_t second = start();
  receiver_->end(first);
  EXPECT_FALSE(next(compute_.accepted, std::chrono::milliseconds(100)).has_value()) << "three of four slots are free";
  message.reset();
  const auto accepted = next(compute_.accepted);
  ASSERT_TRUE(accepted.has_value());
  EXPECT_EQ(accepted->request_id, second);
  receiver_->end(second);
}

// Its two chunks of two layers are four messages, which is also its credit.
TEST_F(ReceiverTest, a_consumer_slower_than_the_silence_timeout_gives_up_nobody) {
  config_.prefill.silence_timeout = std::chrono::milliseconds(500);
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    for (uint32_t i = 0; i < 4; ++i) producer_->send_message(start, i);
    return until_cancelled(stream);
  });
  const uint64_t id = start();
  std::vector<ReceivedMessage> messages;
  for (int i = 0; i < 4; ++i) messages.push_back(next(compute_.messages).value());
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(1000)).has_value()) << "it may send nothing more";
  messages.clear();
  for (uint32_t i = 0; i < 4; ++i) receiver_->chunk_done({id, 1}, i);
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(1000)).has_value()) << "it has sent everything";
  receiver_->end(id);
}

TEST_F(ReceiverTest, silence_counts_from_when_a_slot_is_free_again) {
  config_.prefill.silence_timeout = std::chrono::milliseconds(500);
  config_.prefill.credit_messages = 1;
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    producer_->send_message(start, 0);
    return until_cancelled(stream);
  });
  const uint64_t id = start();
  auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(1000)).has_value()) << "its only slot is in use";
  message.reset();
  const auto freed_at = ServingClock::now();
  receiver_->chunk_done({id, 1}, 0);
  const auto failure = next(compute_.failed);
  ASSERT_TRUE(failure.has_value());
  EXPECT_GE(ServingClock::now() - freed_at, std::chrono::milliseconds(500)) << "it has had no time";
  EXPECT_THAT(failure->message, HasSubstr("500 ms"));
}

// A quarter of the slots that are left, as many as it may have at most, and never fewer than eight.
TEST_F(ReceiverTest, requests_beside_each_other_share_the_slots) {
  TransportOptions options = testing::loopback_options();
  options.slots = 80;
  transport_ = make_loopback_transport(options, network_);
  config_.prefill.credit_messages = 16;
  BoundedQueue<uint32_t> credits{8};
  serve([this, &credits](const v1::StartPrefill& start, Producer::Stream& stream) {
    (void)credits.try_push(start.credit_messages());
    stream.Write(producer_->acceptance(start));
    return until_cancelled(stream);
  });
  std::vector<uint64_t> ids;
  for (const uint32_t expected : {16, 16, 12, 9, 8, 8, 8}) {
    ids.push_back(start());
    EXPECT_EQ(next(credits), expected);
  }
  for (const uint64_t id : ids) receiver_->end(id);
}

// 1000 tokens take a second here and ten there.
TEST_F(ReceiverTest, a_prompt_whose_hand_over_would_take_longer_is_computed_here_where_the_request_leaves_it_open) {
  forecast_.computed_here(1000, seconds(1));
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    return until_cancelled(stream);
  });
  forecast_.computed_there(producer_->address(), 1000, seconds(10));
  uint64_t id = start(TransferMode::kCodec);
  EXPECT_TRUE(next(compute_.accepted).has_value()) << "it names its codec";
  receiver_->end(id);
  start(TransferMode::kAuto);
  const auto declined = next(compute_.declined);
  ASSERT_TRUE(declined.has_value());
  EXPECT_THAT(declined->reason, HasSubstr("computing here"));
  EXPECT_NEAR(declined->forecast.local_seconds, 0.048, 1e-6);
  EXPECT_GT(declined->forecast.handover_seconds, 0.32);
  forecast_.set_backlog(10000);
  id = start(TransferMode::kAuto);
  EXPECT_TRUE(next(compute_.accepted).has_value()) << "here it would have to wait";
  receiver_->end(id);
}

// 64 tokens wait 64 ms for steps of several prompts; of these, the prompt's own share is what was computed.
TEST_F(ReceiverTest, how_fast_a_prefill_server_is_follows_from_a_prompts_share_of_its_steps) {
  forecast_.computed_here(1000, seconds(1));
  const std::vector<std::pair<uint64_t, double>> cases{{6'400, 0.1}, {0, 1.0}, {UINT64_MAX, 1.0}};
  for (const auto& [computed_us, seconds_of_a_thousand] : cases) {
    serve([this, told = computed_us](const v1::StartPrefill& start, Producer::Stream& stream) {
      stream.Write(producer_->acceptance(start));
      v1::PrefillEvent event;
      event.mutable_finished()->set_computed_us(told);
      v1::Span& span = *event.mutable_finished()->add_spans();
      span.set_part(v1::PART_PREFILL);
      span.set_end_us(64'000);
      std::this_thread::sleep_for(std::chrono::milliseconds(70));  // what did not happen is not believed
      stream.Write(event);
      return grpc::Status::OK;
    });
    const uint64_t id = start(TransferMode::kCodec, 64);
    ASSERT_TRUE(next(compute_.accepted).has_value());
    ASSERT_TRUE(next(compute_.finished).has_value());
    const auto forecast = forecast_.predict({.endpoint = producer_->address(),
                                             .fresh_tokens = 1000,
                                             .handover_tokens = 1000,
                                             .local_tokens = 1000,
                                             .transfer_seconds_per_token = 0.0},
                                            ServingClock::now());
    ASSERT_TRUE(forecast.has_value());
    EXPECT_NEAR(forecast->handover_seconds, seconds_of_a_thousand, 0.01) << computed_us;
    receiver_->end(id);
  }
}

TEST_F(ReceiverTest, switched_off_no_prompt_stays_here) {
  config_.prefill.local = LocalPrefill::kOff;
  forecast_.computed_here(1000, seconds(1));
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    return until_cancelled(stream);
  });
  forecast_.computed_there(producer_->address(), 1000, seconds(10));
  const uint64_t id = start(TransferMode::kAuto);
  EXPECT_TRUE(next(compute_.accepted).has_value());
  receiver_->end(id);
}

TEST_F(ReceiverTest, a_prompt_longer_than_a_prefill_servers_context_goes_elsewhere_without_asking_it) {
  std::atomic<int> asked = 0;
  const auto script = [&](const v1::StartPrefill& start, Producer::Stream& stream) {
    ++asked;
    stream.Write(producer_->acceptance(start));
    return until_cancelled(stream);
  };
  producer_ = make_producer(script, [](auto& info) { info.set_context_length(32); });
  config_.prefill.endpoints.clear();
  for (int i = 0; i < 9; ++i) {
    producers_.push_back(
        make_producer([](const auto&, auto&) { return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "too long"); },
                      [](auto& info) { info.set_context_length(31); }));
    config_.prefill.endpoints.push_back(producers_.back()->address());
  }
  config_.prefill.endpoints.push_back(producer_->address());
  start_receiver();
  for (int i = 0; i < 3; ++i) {
    const uint64_t id = start();
    ASSERT_TRUE(next(compute_.accepted).has_value());
    receiver_->end(id);
  }
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(receiver_->counters().failed, 0u);
  EXPECT_EQ(receiver_->counters().started, 3u);
  receiver_.reset();
  producers_.clear();
}

TEST_F(ReceiverTest, a_prompt_longer_than_every_context_is_nobodys) {
  producer_ = make_producer([](const auto&, auto&) { return grpc::Status::OK; },
                            [](auto& info) { info.set_context_length(31); });
  config_.prefill.endpoints = {producer_->address()};
  start_receiver();
  for (int i = 0; i < 2; ++i) {
    start();
    const auto failure = next(compute_.failed);
    ASSERT_TRUE(failure.has_value());
    EXPECT_EQ(failure->code, ErrorCode::kUnavailable) << "so that it is computed here";
    EXPECT_THAT(failure->message, HasSubstr("32 tokens exceed its context of 31"));
    EXPECT_THAT(failure->message, HasSubstr(producer_->address()));
  }
  EXPECT_TRUE(receiver_->endpoints().at(0).healthy);
}

TEST(Handshake, a_prefill_server_with_another_encoder_does_not_suit) {
  ConsumerIdentity consumer;
  consumer.artifact.emplace();
  consumer.artifact->codec = CodecId::kRd;
  consumer.artifact->encoder_id.fill(7);
  CompletionRequest request;
  request.mode = TransferMode::kAuto;
  request.codec.id = CodecId::kRd;
  v1::GetProducerInfoResponse producer;
  EXPECT_TRUE(check_suited(consumer, request, 32, producer).ok()) << "it does not say";
  v1::OfferedCodec& offered = *producer.add_codecs();
  offered.set_codec(v1::CODEC_RD);
  offered.set_encoder_id(std::string(32, 7));
  EXPECT_TRUE(check_suited(consumer, request, 32, producer).ok());
  offered.set_encoder_id(std::string(32, 8));
  EXPECT_EQ(check_suited(consumer, request, 32, producer).failure().code, ErrorCode::kFailedPrecondition);
  request.mode = TransferMode::kExact;
  EXPECT_TRUE(check_suited(consumer, request, 32, producer).ok());
  request = {};
  request.mode = TransferMode::kCodec;
  request.codec.id = CodecId::kRaw;
  EXPECT_TRUE(check_suited(consumer, request, 32, producer).ok());
}

TEST_F(ReceiverTest, an_account_that_cannot_be_true_is_not_taken_and_the_codes_are) {
  const std::vector<std::pair<uint64_t, uint64_t>> lies{{0, uint64_t{1} << 63}, {5, 1}, {0, 3'600'000'000}};
  for (const auto& [begin, end] : lies) {
    serve([&](const v1::StartPrefill& start, Producer::Stream& stream) {
      stream.Write(producer_->acceptance(start));
      v1::PrefillEvent event;
      v1::Span& span = *event.mutable_finished()->add_spans();
      span.set_part(v1::PART_PREFILL);
      span.set_start_us(begin);
      span.set_end_us(end);
      event.mutable_finished()->set_lanes(std::string(255, 'x') + "\u00e4" + std::string(1000, 'x'));
      stream.Write(event);
      return until_cancelled(stream);
    });
    const auto job = this->job();
    receiver_->start(job, {.handover_tokens = 32});
    EXPECT_TRUE(next(compute_.finished).has_value());
    EXPECT_TRUE(job->timeline.spans().empty());
    EXPECT_EQ(receiver_->endpoints().at(0).lanes, std::string(255, 'x'));
    receiver_.reset();
  }
}

TEST_F(ReceiverTest, what_a_prefill_server_says_of_its_failure_is_cut) {
  const Failure failure = failure_after([](const auto&) { return failure_event(14, std::string(100'000, 'x')); });
  EXPECT_EQ(failure.code, ErrorCode::kUnavailable);
  EXPECT_LT(failure.message.size(), 1200u);
}

}  // namespace
}  // namespace scd
