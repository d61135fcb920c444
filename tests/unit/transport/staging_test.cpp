#include "common/transport/staging.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

#include "transport_test_kit.h"

namespace scd {
namespace {

using namespace testing_kit;

constexpr LeaseKey kKey{7, 1};

RejectReason admit(StagingPool& pool, const MessageHeader& header, Landing& landing) {
  return pool.admit(serialize(header), header.payload_bytes, landing);
}

MessageHeader message_of(LeaseKey key, size_t bytes) {
  MessageHeader header = header_for(key);
  header.payload_bytes = bytes;
  return header;
}

TEST(StagingPool, hands_complete_messages_to_their_lease) {
  StagingPool pool(8192, 4);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 2)).value_or_throw();
  Landing landing;
  const auto bytes = pattern(5000, 3);
  MessageHeader header = message_of(kKey, bytes.size());
  header.payload_crc = crc32c(bytes);
  ASSERT_EQ(admit(pool, header, landing), RejectReason::kNone);
  std::memcpy(landing.target().data(), bytes.data(), bytes.size());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(landing.target().data()) % 4096, 0U);
  pool.deliver(std::move(landing));

  auto message = collector.next(0ms);
  ASSERT_TRUE(message);
  EXPECT_TRUE(has_bytes(*message, bytes));
  EXPECT_TRUE(message->verify_payload().ok());
  EXPECT_EQ(pool.counters().slots_in_use, 1U);
  message.reset();
  EXPECT_EQ(pool.counters().slots_in_use, 0U);
  EXPECT_EQ(pool.counters().messages_received, 1U);
  EXPECT_EQ(pool.counters().payload_bytes_received, bytes.size());
}

TEST(StagingPool, notices_a_payload_that_changed) {
  StagingPool pool(4096, 1);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  Landing landing;
  ASSERT_EQ(admit(pool, message_of(kKey, 100), landing), RejectReason::kNone);
  landing.target()[5] = std::byte{1};
  landing.header.payload_crc = 12345;
  pool.deliver(std::move(landing));
  EXPECT_EQ(collector.next(0ms)->verify_payload().failure().code, ErrorCode::kDataLoss);
}

TEST(StagingPool, refuses_strangers_and_counts_why) {
  StagingPool pool(4096, 4);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  Landing landing;
  MessageHeader forged = message_of(kKey, 10);
  forged.token[15] ^= 1;
  EXPECT_EQ(admit(pool, forged, landing), RejectReason::kWrongToken);
  EXPECT_EQ(admit(pool, message_of({8, 1}, 10), landing), RejectReason::kUnknownLease);
  EXPECT_EQ(admit(pool, message_of(kKey, 4097), landing), RejectReason::kOversizedPayload);
  EXPECT_EQ(pool.admit(serialize(message_of(kKey, 10)), 11, landing), RejectReason::kPayloadSizeMismatch);
  const auto rejected = pool.counters().rejected;
  EXPECT_EQ(rejected[static_cast<size_t>(RejectReason::kWrongToken)], 1U);
  EXPECT_EQ(rejected[static_cast<size_t>(RejectReason::kUnknownLease)], 1U);
  EXPECT_EQ(rejected[static_cast<size_t>(RejectReason::kOversizedPayload)], 1U);
  EXPECT_EQ(rejected[static_cast<size_t>(RejectReason::kPayloadSizeMismatch)], 1U);
  EXPECT_EQ(pool.counters().slots_in_use, 0U);
  EXPECT_EQ(pool.counters().late_messages_dropped, 0U);
}

TEST(StagingPool, holds_a_sender_to_its_credit) {
  StagingPool pool(4096, 4);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  Landing first;
  Landing second;
  ASSERT_EQ(admit(pool, message_of(kKey, 10), first), RejectReason::kNone);
  EXPECT_EQ(admit(pool, message_of(kKey, 10), second), RejectReason::kNoCredit);
  pool.deliver(std::move(first));
  collector.next(0ms).reset();
  EXPECT_EQ(admit(pool, message_of(kKey, 10), second), RejectReason::kNone);
}

TEST(StagingPool, never_promises_more_slots_than_it_has) {
  StagingPool pool(4096, 4);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 3)).value_or_throw();
  EXPECT_EQ(pool.open_lease(collector.request({8, 1}, 2)).failure().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(pool.open_lease(collector.request(kKey, 1)).failure().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(pool.open_lease(collector.request({9, 1}, 0)).failure().code, ErrorCode::kInvalidArgument);
  lease.close();
  EXPECT_TRUE(pool.open_lease(collector.request({8, 1}, 4)).ok());
}

TEST(StagingPool, drops_what_lands_after_its_lease_was_closed) {
  StagingPool pool(4096, 1);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  Landing landing;
  ASSERT_EQ(admit(pool, message_of(kKey, 10), landing), RejectReason::kNone);
  lease.close();
  pool.deliver(std::move(landing));
  EXPECT_FALSE(collector.next(0ms));
  EXPECT_EQ(pool.counters().late_messages_dropped, 1U);
  EXPECT_EQ(admit(pool, message_of(kKey, 10), landing), RejectReason::kDeadGeneration);
  EXPECT_EQ(pool.counters().late_messages_dropped, 2U);
  EXPECT_EQ(pool.counters().live_leases, 0U);
  EXPECT_EQ(pool.counters().slots_in_use, 0U);
}

TEST(StagingPool, keeps_a_slot_fenced_while_the_network_writes_into_it) {
  StagingPool pool(4096, 1);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  Landing in_flight;
  ASSERT_EQ(admit(pool, message_of(kKey, 10), in_flight), RejectReason::kNone);
  lease.close();
  EXPECT_EQ(pool.open_lease(collector.request({8, 1}, 1)).failure().code, ErrorCode::kResourceExhausted);
  pool.deliver(std::move(in_flight));
  EXPECT_TRUE(pool.open_lease(collector.request({8, 1}, 1)).ok());
}

TEST(StagingPool, a_later_generation_makes_the_earlier_one_dead) {
  StagingPool pool(4096, 2);
  Collector old_collector;
  Collector collector;
  Lease old = pool.open_lease(old_collector.request({7, 1}, 1)).value_or_throw();
  Lease lease = pool.open_lease(collector.request({7, 2}, 1)).value_or_throw();
  EXPECT_EQ(pool.counters().live_leases, 1U);
  EXPECT_EQ(pool.counters().slots_reserved, 1U);
  Landing landing;
  EXPECT_EQ(admit(pool, message_of({7, 1}, 10), landing), RejectReason::kDeadGeneration);
  EXPECT_EQ(admit(pool, message_of({7, 2}, 10), landing), RejectReason::kNone);
  EXPECT_EQ(pool.open_lease(collector.request({7, 1}, 1)).failure().code, ErrorCode::kAlreadyExists);
}

TEST(StagingPool, a_later_generation_may_stand_beside_the_earlier_one) {
  StagingPool pool(4096, 2);
  Collector old_collector;
  Collector collector;
  Lease old = pool.open_lease(old_collector.request({7, 1}, 1)).value_or_throw();
  LeaseRequest beside = collector.request({7, 2}, 1);
  beside.beside_earlier = true;
  Lease lease = pool.open_lease(std::move(beside)).value_or_throw();
  EXPECT_EQ(pool.counters().live_leases, 2U);
  Landing landing, other;
  EXPECT_EQ(admit(pool, message_of({7, 1}, 10), landing), RejectReason::kNone);
  EXPECT_EQ(admit(pool, message_of({7, 2}, 10), other), RejectReason::kNone);
  lease.close();
  EXPECT_EQ(pool.counters().live_leases, 1U);
}

TEST(StagingPool, tells_a_lease_of_its_failure_once) {
  StagingPool pool(4096, 1);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  pool.fail_lease(kKey, {ErrorCode::kUnavailable, "gone"});
  pool.fail_lease(kKey, {ErrorCode::kUnavailable, "gone again"});
  EXPECT_EQ(collector.failure(0ms)->message, "gone");
  EXPECT_FALSE(collector.failure(0ms));
  Landing landing;
  EXPECT_EQ(admit(pool, message_of(kKey, 10), landing), RejectReason::kDeadGeneration);
}

TEST(StagingPool, closing_waits_for_a_running_callback) {
  StagingPool pool(4096, 1);
  std::promise<void> entered;
  std::promise<void> leave;
  bool left = false;
  LeaseRequest request{.key = kKey,
                       .token = kToken,
                       .slots = 1,
                       .on_message =
                           [&](const ReceivedMessage&) {
                             entered.set_value();
                             leave.get_future().wait();
                             left = true;
                           },
                       .on_failure = [](const Failure&) {}};
  Lease lease = pool.open_lease(std::move(request)).value_or_throw();
  std::jthread network([&] {
    Landing landing;
    ASSERT_EQ(admit(pool, message_of(kKey, 10), landing), RejectReason::kNone);
    pool.deliver(std::move(landing));
  });
  entered.get_future().wait();
  std::jthread releaser([&] { leave.set_value(); });
  lease.close();
  EXPECT_TRUE(left);
}

TEST(StagingPool, a_callback_may_close_its_own_lease) {
  StagingPool pool(4096, 1);
  Lease lease;
  lease = pool.open_lease({.key = kKey,
                           .token = kToken,
                           .slots = 1,
                           .on_message = [&](const ReceivedMessage&) { lease.close(); },
                           .on_failure = [](const Failure&) {}})
              .value_or_throw();
  Landing landing;
  ASSERT_EQ(admit(pool, message_of(kKey, 10), landing), RejectReason::kNone);
  pool.deliver(std::move(landing));
  EXPECT_EQ(pool.counters().live_leases, 0U);
  EXPECT_EQ(pool.counters().slots_in_use, 0U);
}

TEST(StagingPool, messages_and_leases_may_outlive_it) {
  Collector collector;
  Lease lease;
  {
    StagingPool pool(4096, 1);
    lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
    Landing landing;
    ASSERT_EQ(admit(pool, message_of(kKey, 3), landing), RejectReason::kNone);
    std::memcpy(landing.target().data(), "abc", 3);
    pool.deliver(std::move(landing));
  }
  EXPECT_EQ(std::memcmp(collector.next(0ms)->payload().data(), "abc", 3), 0);
}

TEST(StagingPool, tells_late_peers_from_strangers) {
  StagingPool pool(4096, 1);
  Collector collector;
  Lease lease = pool.open_lease(collector.request(kKey, 1)).value_or_throw();
  MessageHeader forged = header_for(kKey);
  forged.token[0] ^= 1;
  EXPECT_TRUE(pool.is_authentic(header_for(kKey)));
  EXPECT_FALSE(pool.is_authentic(forged));
  lease.close();
  EXPECT_TRUE(pool.is_authentic(header_for(kKey)));
  EXPECT_FALSE(pool.is_authentic(forged));
  EXPECT_FALSE(pool.is_authentic(header_for({8, 1})));
}

}  // namespace
}  // namespace scd
