// What a decode server may say on the control stream, and when it says nothing any more.
#include <chrono>

#include "tests/unit/prefill_server/server_fixture.h"
#include "tests/unit/prefill_server/slow_transport.h"

namespace scd {
namespace {

using testing::Consumer;
using ::testing::HasSubstr;
using testing::PrefillServerTest;
using testing::prompt;
using testing::Received;
using testing::SendWatch;
using testing::SlowTransport;
using namespace std::chrono_literals;

TEST_F(PrefillServerTest, CancellingFreesEverythingSoon) {
  serve();
  Consumer::Call call(*consumer_, consumer_->start(prompt(480), 480));
  ASSERT_TRUE(call.message().has_value());
  call.cancel();
  const auto started = std::chrono::steady_clock::now();
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(becomes_idle(5s));
  RecordProperty("cancel_ms", static_cast<int>((std::chrono::steady_clock::now() - started) / 1ms));
  EXPECT_EQ(ended_with(ErrorCode::kCancelled), 1U);
  EXPECT_TRUE(consumer_->receive(consumer_->start(prompt(64), 64)).status.ok()) << "it goes on serving";
}

TEST_F(PrefillServerTest, AbandonEndsTheRequestUnlessItIsOfALaterGeneration) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(480), 480);
  start.set_generation(5);
  Consumer::Call call(*consumer_, start);
  ASSERT_TRUE(call.message().has_value());
  v1::PrefillCommand abandon;
  abandon.mutable_abandon()->set_generation(4);
  call.write(abandon);
  call.acknowledge(0);
  ASSERT_TRUE(call.message().has_value()) << "still alive";
  abandon.mutable_abandon()->set_generation(5);
  call.write(abandon);
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, AConsumerThatAcknowledgesNothingMeetsTheDeadline) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(160), 160);
  start.set_deadline_ms(300);
  Consumer::Call call(*consumer_, start);
  const Received received = call.end();
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(received.events.back().has_failed());
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, ALaterGenerationReplacesTheEarlierOne) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(160), 160);
  Consumer::Call call(*consumer_, start);
  ASSERT_TRUE(call.message().has_value());
  start.set_generation(2);
  EXPECT_TRUE(consumer_->receive(start).status.ok());
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::ABORTED);
  start.set_generation(2);
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, ASecondStartOfARequestLeavesTheFirstAlone) {
  SendWatch watch(60s);
  serve(std::make_unique<SlowTransport>(make_loopback_transport(testing::loopback_options(), network_), watch));
  const v1::StartPrefill start = consumer_->start(prompt(160), 160);
  auto first = std::async(std::launch::async, [&] { return consumer_->receive(start); });
  ASSERT_TRUE(watch.wait_for_send());

  grpc::ClientContext context;
  const auto second = consumer_->stub().Prefill(&context);
  v1::PrefillCommand command;
  *command.mutable_start() = start;
  ASSERT_TRUE(second->Write(command));
  v1::PrefillEvent event;
  while (second->Read(&event)) {
  }
  EXPECT_EQ(second->Finish().error_code(), grpc::StatusCode::ALREADY_EXISTS);
  watch.hold(false);
  const Received received = first.get();
  EXPECT_TRUE(received.status.ok()) << received.status.error_message();
  EXPECT_EQ(received.payloads.size(), 4U * 5);
  EXPECT_TRUE(watch.abandoned.empty());
  EXPECT_TRUE(becomes_idle(5s));
  server_.reset();  // before the watch
}

TEST_F(PrefillServerTest, WrongFingerprintsAreRefusedByName) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(64), 64);
  start.mutable_expected_model()->set_weights("0123");
  const Received received = consumer_->receive(start);
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(received.status.error_message(), HasSubstr("model weights"));
}

TEST_F(PrefillServerTest, APayloadLargerThanTheConsumersSlotsIsRefusedWithBothSizes) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(64), 64);
  start.set_slot_bytes(100);
  const Received received = Consumer::Call(*consumer_, start).end();
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(received.status.error_message(), HasSubstr("slots hold 100"));
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, MoreThanFitsIsRefusedAtOnce) {
  config_.limits.max_requests = 1;
  serve();
  EXPECT_EQ(consumer_->receive(consumer_->start(prompt(640), 640)).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED)
      << "pages";
  Consumer::Call call(*consumer_, consumer_->start(prompt(160), 160));
  ASSERT_TRUE(call.message().has_value());
  EXPECT_EQ(consumer_->receive(consumer_->start(prompt(64), 64)).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED)
      << "requests";
  call.cancel();
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(PrefillServerTest, ALostConsumerEndsItsRequest) {
  serve();
  Consumer::Call call(*consumer_, consumer_->start(prompt(480), 480));
  ASSERT_TRUE(call.message().has_value());
  network_.cut(consumer_->transport().address());
  call.acknowledge(0);
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, OneCommandAcknowledgesSeveralMessages) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(480), 480);
  start.set_credit_messages(2);
  Consumer::Call call(*consumer_, start);
  for (uint32_t sequence = 0; sequence < 6; sequence += 2) {
    ASSERT_TRUE(call.message().has_value() && call.message().has_value()) << sequence;
    EXPECT_FALSE(call.message(50ms).has_value()) << "its credit is used up";
    call.acknowledge({sequence, sequence + 1});
  }
  ASSERT_TRUE(call.message().has_value());
  call.acknowledge({6, 6});
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "twice";
}

TEST_F(PrefillServerTest, CommandsOutOfOrderAreRefused) {
  serve();
  grpc::ClientContext context;
  auto stream = consumer_->stub().Prefill(&context);
  v1::PrefillCommand command;
  command.mutable_credit()->set_messages(1);
  stream->Write(command);
  v1::PrefillEvent event;
  while (stream->Read(&event)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  Consumer::Call call(*consumer_, consumer_->start(prompt(480), 480));
  call.acknowledge(400);
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, SmallerRanksAndMoreCreditMayComeLater) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(64), 64);
  start.set_credit_messages(8);
  Consumer::Call call(*consumer_, start);
  v1::PrefillCommand command;
  command.mutable_set_level()->mutable_rank()->set_key(4);
  call.write(command);
  for (uint32_t i = 0; i < 8; ++i) ASSERT_TRUE(call.message().has_value());
  EXPECT_TRUE(call.end().status.ok()) << "8 messages fit into the credit";
}

}  // namespace
}  // namespace scd
