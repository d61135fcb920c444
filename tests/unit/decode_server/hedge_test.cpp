#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <utility>

#include "tests/unit/decode_server/receiver_fixture.h"

namespace scd {
namespace {

using std::chrono::seconds;
using testing::kPatience;
using testing::next;
using testing::Producer;
using testing::ReceiverTest;
using testing::until_cancelled;

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
        ++asked_;
        const size_t turn = start.generation() - 1;
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
  BoundedQueue<bool> lead_accepted(1);
  serve_two(nothing, [&](Producer& producer, const v1::StartPrefill& start) {
    (void)next(lead_accepted);
    return send(producer, start);
  });
  const uint64_t id = start();
  const auto lead = next(compute_.accepted);
  lead_accepted.push(true);
  ASSERT_TRUE(lead.has_value());
  EXPECT_EQ(lead->generation, 1u);
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

// It accepts connections and says nothing.
TEST_F(HedgeTest, one_that_hangs_before_it_says_what_it_is_is_hedged_too) {
  config_.prefill.health_every = {};
  serve_two(send, send);
  receiver_.reset();
  producers_.at(0)->hang();
  start_receiver();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the other one has said what it is
  for (int i = 0; i < 2; ++i) {                                 // one of them asks the hanging one first
    const uint64_t id = start();
    EXPECT_TRUE(next(compute_.messages, seconds(5)).has_value());
    receiver_->end(id);
  }
  EXPECT_GE(receiver_->counters().hedges, 1u);
  producers_.at(0)->go_on();
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
