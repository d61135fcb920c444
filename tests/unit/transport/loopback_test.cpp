#include "common/transport/loopback.h"

#include <gtest/gtest.h>

#include "transport_test_kit.h"

namespace scd {
namespace {

using namespace testing_kit;

class Loopback : public testing::Test {
 protected:
  static constexpr LeaseKey kKey{7, 1};

  static TransportOptions options() {
    TransportOptions options;
    options.kind = TransportKind::kLoopback;
    options.slot_bytes = 1 << 16;
    options.slots = 16;
    return options;
  }
  Result<SendReport> send(uint32_t sequence) {
    return send_and_wait(*sender_, make_send(receiver_->address(), kKey, sequence, 1000));
  }

  LoopbackNetwork network_;
  std::unique_ptr<Transport> receiver_ = make_transport(options(), &network_);
  std::unique_ptr<Transport> sender_ = make_transport(options(), &network_);
  Collector collector_;
  Lease lease_ = receiver_->open_lease(collector_.request(kKey, 8)).value_or_throw();
};

TEST_F(Loopback, drops_without_the_sender_noticing) {
  network_.set_faults([](const MessageHeader& header) { return LoopbackFault{.drop = header.sequence == 0}; });
  EXPECT_TRUE(send(0).ok());
  EXPECT_TRUE(send(1).ok());
  EXPECT_EQ(collector_.next()->header().sequence, 1U);
  EXPECT_FALSE(collector_.next(10ms));
}

TEST_F(Loopback, delays_and_reorders) {
  network_.set_faults(
      [](const MessageHeader& header) { return LoopbackFault{.delay = header.sequence == 0 ? 30ms : 0ms}; });
  const auto before = Clock::now();
  EXPECT_TRUE(send(0).ok());
  EXPECT_TRUE(send(1).ok());
  EXPECT_EQ(collector_.next()->header().sequence, 1U);
  EXPECT_EQ(collector_.next()->header().sequence, 0U);
  EXPECT_GE(Clock::now() - before, 30ms);
}

TEST_F(Loopback, corrupts_a_payload_and_the_reader_notices) {
  network_.set_faults([](const MessageHeader&) { return LoopbackFault{.flip_payload_bit = 4321}; });
  EXPECT_TRUE(send(0).ok());
  const auto message = collector_.next();
  ASSERT_TRUE(message);
  EXPECT_EQ(message->verify_payload().failure().code, ErrorCode::kDataLoss);
}

TEST_F(Loopback, corrupts_a_header_and_the_lease_fails_once_it_was_fed) {
  EXPECT_TRUE(send(0).ok());
  ASSERT_TRUE(collector_.next());
  network_.set_faults([](const MessageHeader&) { return LoopbackFault{.flip_header_bit = 70}; });
  EXPECT_TRUE(send(1).ok());
  const auto failure = collector_.failure();
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, ErrorCode::kDataLoss);
  EXPECT_EQ(receiver_->counters().staging.rejected[static_cast<size_t>(RejectReason::kHeaderCrc)], 1U);
}

TEST_F(Loopback, a_cut_peer_is_lost_to_both_sides_until_restored) {
  EXPECT_TRUE(send(0).ok());
  ASSERT_TRUE(collector_.next());
  network_.cut(sender_->address());
  EXPECT_EQ(collector_.failure()->code, ErrorCode::kUnavailable);
  EXPECT_EQ(send(1).failure().code, ErrorCode::kUnavailable);
  network_.restore(sender_->address());
  lease_ = receiver_->open_lease(collector_.request({7, 2}, 8)).value_or_throw();
  EXPECT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), {7, 2}, 2, 10)).ok());
  EXPECT_EQ(collector_.next()->header().sequence, 2U);
}

TEST_F(Loopback, needs_a_network) { EXPECT_THROW(make_transport(options()), Error); }

TEST(TransportOptionsCheck, names_what_is_out_of_range) {
  const auto message_for = [](auto change) -> std::string {
    TransportOptions options;
    change(options);
    try {
      check_options(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message_for([](TransportOptions&) {}), "");
  EXPECT_NE(message_for([](TransportOptions& o) { o.slots = 0; }).find("slots is 0"), std::string::npos);
  EXPECT_NE(message_for([](TransportOptions& o) { o.slot_bytes = 1; }).find("slot_bytes is 1"), std::string::npos);
  EXPECT_NE(message_for([](TransportOptions& o) { o.bytes_in_flight = 4095; }).find("bytes_in_flight is 4095"),
            std::string::npos);
  EXPECT_NE(message_for([](TransportOptions& o) { o.bandwidth_gbps = -1; }).find("bandwidth_gbps"), std::string::npos);
  EXPECT_NE(message_for([](TransportOptions& o) { o.peer_timeout = 1ms; }).find("peer_timeout_ms"), std::string::npos);
  EXPECT_NE(message_for([](TransportOptions& o) {
              o.port_first = 10;
              o.port_last = 9;
            }).find("port"),
            std::string::npos);
}

}  // namespace
}  // namespace scd
