#include "decode_server/receive/receiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>

#include "common/threads/bounded_queue.h"
#include "tests/unit/decode_server/producer.h"
#include "tests/unit/decode_server/served_models.h"

namespace scd {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using testing::Producer;

constexpr seconds kPatience{10};

// Remembers what the receiver says.
class FakeCompute final : public ComputeStage {
 public:
  void admit(std::shared_ptr<DecodeJob>) override {}
  void wake() override {}
  void transfer_accepted(TransferKey key, TransferPlan) override { accepted.push(key); }
  void message_arrived(TransferKey, ReceivedMessage message) override { messages.push(std::move(message)); }
  void transfer_restarted(TransferKey) override {}
  void transfer_declined(TransferKey, LocalChoice choice) override { declined.push(std::move(choice)); }
  void transfer_finished(TransferKey key) override { finished.push(key); }
  void transfer_failed(TransferKey, Failure failure) override { failed.push(std::move(failure)); }

  BoundedQueue<TransferKey> accepted{16}, finished{16};
  BoundedQueue<ReceivedMessage> messages{16};
  BoundedQueue<Failure> failed{16};
  BoundedQueue<LocalChoice> declined{16};
};

class NoSink final : public CompletionSink {
 public:
  void on_prompt(const PromptInfo&) override {}
  void on_delta(CompletionDelta) override {}
  void on_end(CompletionEnd) override {}
  void on_failure(const Failure&) override {}
};

template <class T>
std::optional<T> next(BoundedQueue<T>& queue, std::chrono::milliseconds patience = kPatience) {
  return queue.pop_until(ServingClock::now() + patience);
}

// Waits until the decode server ends the call.
grpc::Status until_cancelled(Producer::Stream& stream) {
  v1::PrefillCommand command;
  while (stream.Read(&command)) {
  }
  return grpc::Status::CANCELLED;
}

v1::PrefillEvent failure_event(uint32_t code, const std::string& message) {
  v1::PrefillEvent event;
  event.mutable_failed()->set_code(code);
  event.mutable_failed()->set_message(message);
  return event;
}

class ReceiverTest : public ::testing::Test {
 protected:
  ReceiverTest() {
    consumer_.fingerprint = {.weights = "aaaa", .tokenizer = "bbbb", .rope = "{}"};
    consumer_.model = {.layers = 2, .kv_heads = 1, .head_dim = 4, .hidden = 8, .rope = {{1.0F, 0.1F}}};
    config_.prefill.credit_messages = 4;  // all the slots there are
  }

  // A prefill server with the consumer's own model.
  std::unique_ptr<Producer> make_producer(Producer::Script script,
                                          const std::function<void(v1::GetProducerInfoResponse&)>& change = {}) {
    v1::GetProducerInfoResponse info;
    info.mutable_fingerprint()->set_weights(consumer_.fingerprint.weights);
    info.mutable_fingerprint()->set_tokenizer(consumer_.fingerprint.tokenizer);
    info.mutable_fingerprint()->set_rope(consumer_.fingerprint.rope);
    info.set_layers(2);
    info.set_kv_heads(1);
    info.set_head_dim(4);
    info.set_hidden_size(8);
    info.set_chunk_tokens(16);
    info.set_bandwidth_gbps(1);
    if (change) change(info);
    return std::make_unique<Producer>(std::move(info), network_, std::move(script));
  }
  void start_receiver() {
    receiver_ = std::make_unique<Receiver>(Receiver::Args{config_, *transport_, compute_, forecast_, metrics_});
  }
  // And a receiver that knows it alone.
  void serve(Producer::Script script) {
    producer_ = make_producer(std::move(script));
    config_.prefill.endpoints = {producer_->address()};
    start_receiver();
  }
  uint64_t start(TransferMode mode = TransferMode::kCodec) {
    auto job = std::make_shared<DecodeJob>(++last_id_, ServingClock::now(), std::make_shared<NoSink>());
    job->request.prompt.assign(48, 3);
    job->model = testing::served_model({config_, model_, tokenizer_, "tiny", 8}, prefixes_, consumer_);
    job->request.mode = mode;
    receiver_->start(std::move(job), {.handover_tokens = 32, .skip_tokens = 0, .first_layer = 0});
    return last_id_;
  }
  // What a request ends with when the prefill server accepts it and then says `event`.
  Failure failure_after(std::function<v1::PrefillEvent(const v1::StartPrefill&)> event) {
    serve([this, event = std::move(event)](const v1::StartPrefill& start, Producer::Stream& stream) {
      stream.Write(producer_->acceptance(start));
      stream.Write(event(start));
      return until_cancelled(stream);
    });
    start();
    return next(compute_.failed).value_or(Failure{ErrorCode::kUnknown, "nothing failed"});
  }

  DecodeConfig config_;
  ConsumerIdentity consumer_;
  ModelConfig model_;
  Tokenizer tokenizer_ = testing::byte_tokenizer(std::filesystem::path(::testing::TempDir()) / "receiver.json");
  PagePool pages_{8, kPageTokens};
  PrefixCache prefixes_{pages_, 8};
  LoopbackNetwork network_;
  std::unique_ptr<Transport> transport_ = make_loopback_transport(testing::loopback_options(), network_);
  FakeCompute compute_;
  PrefillForecast forecast_;
  MetricsRegistry registry_;
  DecodeMetrics metrics_{registry_};
  std::unique_ptr<Producer> producer_;
  std::vector<std::unique_ptr<Producer>> producers_;
  std::unique_ptr<Receiver> receiver_;  // ends before those it calls
  uint64_t last_id_ = 0;
};

TEST_F(ReceiverTest, a_second_acceptance_is_data_loss) {
  const Failure failure = failure_after([this](const auto& start) { return producer_->acceptance(start); });
  EXPECT_EQ(failure.code, ErrorCode::kDataLoss);
  EXPECT_THAT(failure.message, HasSubstr("accepted the request twice"));
  EXPECT_THAT(failure.message, HasSubstr(producer_->address()));
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
  config_.prefill.silence_timeout = std::chrono::milliseconds(100);
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    for (uint32_t i = 0; i < 4; ++i) producer_->send_message(start, i);
    return until_cancelled(stream);
  });
  const uint64_t id = start();
  std::vector<ReceivedMessage> messages;
  for (int i = 0; i < 4; ++i) messages.push_back(next(compute_.messages).value());
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(300)).has_value()) << "it may send nothing more";
  messages.clear();
  for (uint32_t i = 0; i < 4; ++i) receiver_->chunk_done({id, 1}, i);
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(300)).has_value()) << "it has sent everything";
  receiver_->end(id);
}

TEST_F(ReceiverTest, silence_counts_from_when_a_slot_is_free_again) {
  config_.prefill.silence_timeout = std::chrono::milliseconds(200);
  config_.prefill.credit_messages = 1;
  serve([this](const v1::StartPrefill& start, Producer::Stream& stream) {
    stream.Write(producer_->acceptance(start));
    producer_->send_message(start, 0);
    return until_cancelled(stream);
  });
  const uint64_t id = start();
  auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(500)).has_value()) << "its only slot is in use";
  message.reset();
  receiver_->chunk_done({id, 1}, 0);
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(100)).has_value()) << "it has had no time";
  const auto failure = next(compute_.failed);
  ASSERT_TRUE(failure.has_value());
  EXPECT_THAT(failure->message, HasSubstr("200 ms"));
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
    producers_.push_back(make_producer(script, [](auto& info) { info.set_context_length(31); }));
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

// Two prefill servers; whichever is asked first is the slow one.
class HedgeTest : public ReceiverTest {
 protected:
  // What one does after it accepted; false: it fails.
  using Act = std::function<bool(Producer&, const v1::StartPrefill&)>;

  HedgeTest() {
    config_.prefill.credit_messages = 2;  // of four slots
    config_.prefill.hedge_after = std::chrono::milliseconds(50);
  }
  ~HedgeTest() override {
    receiver_.reset();
    producers_.clear();
  }
  static bool nothing(Producer&, const v1::StartPrefill&) { return true; }
  static bool send(Producer& producer, const v1::StartPrefill& start) {
    producer.send_message(start, 0);
    return true;
  }
  void serve_two(Act first, Act second) {
    acts_ = {std::move(first), std::move(second)};
    config_.prefill.endpoints.clear();
    for (size_t i = 0; i < 2; ++i) {
      producers_.push_back(make_producer([this, i](const v1::StartPrefill& start, Producer::Stream& stream) {
        const size_t turn = asked_.fetch_add(1);
        stream.Write(producers_[i]->acceptance(start));
        const bool well = turn >= 2 || acts_[turn](*producers_[i], start);
        const grpc::Status status =
            well ? until_cancelled(stream) : grpc::Status(grpc::StatusCode::UNAVAILABLE, "down");
        ended_.push(start.generation());
        return status;
      }));
      config_.prefill.endpoints.push_back(producers_[i]->address());
    }
    start_receiver();
  }
  bool leases_become(size_t count) {
    const auto deadline = ServingClock::now() + kPatience;
    while (transport_->counters().staging.live_leases != count) {
      if (ServingClock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  double hedges(const std::string& outcome) { return metrics_.hedges.of({outcome})->value(); }

  std::array<Act, 2> acts_;
  std::atomic<size_t> asked_{0};
  BoundedQueue<uint32_t> ended_{16};  // generations
};

TEST_F(HedgeTest, the_second_takes_over_where_it_sends_first_and_the_first_ends) {
  serve_two(nothing, send);
  const uint64_t id = start();
  EXPECT_EQ(next(compute_.accepted)->generation, 1u);
  auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->header().generation, 2u);
  EXPECT_EQ(next(compute_.accepted)->generation, 2u);
  EXPECT_EQ(next(ended_), 1u) << "the loser is cancelled";
  EXPECT_EQ(hedges("won"), 1);
  EXPECT_TRUE(leases_become(1));
  message.reset();
  receiver_->end(id);
  EXPECT_EQ(next(ended_), 2u);
  EXPECT_TRUE(leases_become(0));
  EXPECT_EQ(receiver_->counters().hedges, 1u);
}

TEST_F(HedgeTest, the_first_stays_where_it_sends_first_and_the_second_ends) {
  BoundedQueue<uint32_t> hedged(1);
  serve_two(
      [&](Producer& producer, const v1::StartPrefill& start) {
        (void)next(hedged);
        return send(producer, start);
      },
      [&](Producer&, const v1::StartPrefill& start) { return hedged.push(start.generation()); });
  const uint64_t id = start();
  const auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->header().generation, 1u);
  EXPECT_EQ(next(ended_), 2u);
  EXPECT_EQ(hedges("lost"), 1);
  EXPECT_TRUE(leases_become(1));
  receiver_->end(id);
  EXPECT_TRUE(leases_become(0));
  EXPECT_EQ(next(compute_.accepted)->generation, 1u);
  EXPECT_FALSE(next(compute_.accepted, std::chrono::milliseconds(50)).has_value()) << "the loser was never told of";
}

TEST_F(HedgeTest, where_the_first_fails_the_second_takes_over_at_once) {
  BoundedQueue<uint32_t> hedged(1);
  BoundedQueue<bool> told(1);
  serve_two(
      [&](Producer&, const v1::StartPrefill&) {
        (void)next(hedged);
        return false;
      },
      [&](Producer& producer, const v1::StartPrefill& start) {
        hedged.push(start.generation());
        (void)next(told);
        return send(producer, start);
      });
  const uint64_t id = start();
  EXPECT_EQ(next(compute_.accepted)->generation, 1u);
  EXPECT_EQ(next(compute_.accepted)->generation, 2u);
  told.push(true);
  const auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->header().generation, 2u);
  EXPECT_EQ(receiver_->counters().other_endpoints, 0u) << "no third try";
  receiver_->end(id);
  EXPECT_TRUE(leases_become(0));
}

TEST_F(HedgeTest, where_the_second_fails_the_first_goes_on) {
  serve_two(
      [&](Producer& producer, const v1::StartPrefill& start) {
        (void)next(ended_);
        return send(producer, start);
      },
      [](Producer&, const v1::StartPrefill&) { return false; });
  const uint64_t id = start();
  const auto message = next(compute_.messages);
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->header().generation, 1u);
  EXPECT_FALSE(next(compute_.failed, std::chrono::milliseconds(50)).has_value());
  receiver_->end(id);
  EXPECT_TRUE(leases_become(0));
}

TEST_F(HedgeTest, switched_off_nobody_else_is_asked) {
  config_.prefill.hedge_after = {};
  serve_two(nothing, nothing);
  const uint64_t id = start();
  EXPECT_TRUE(next(compute_.accepted).has_value());
  EXPECT_FALSE(next(compute_.accepted, std::chrono::milliseconds(200)).has_value());
  EXPECT_EQ(asked_, 1u);
  receiver_->end(id);
}

}  // namespace
}  // namespace scd
