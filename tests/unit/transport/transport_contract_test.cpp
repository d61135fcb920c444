// What every transport promises, run over each of them.
#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <span>
#include <vector>

#include "common/base/send_memory.h"
#include "common/transport/loopback.h"
#include "transport_test_kit.h"

namespace scd {
namespace {

using namespace testing_kit;

struct Wire {
  const char* name;
  TransportKind kind;
  const char* transports;
};
void PrintTo(const Wire& wire, std::ostream* out) { *out << wire.name; }

class TransportContract : public testing::TestWithParam<Wire> {
 protected:
  static constexpr LeaseKey kKey{7, 1};
  static constexpr size_t kSendMemory = 4 << 20;

  TransportOptions options() const {
    TransportOptions options;
    options.kind = GetParam().kind;
    options.listen_host = "127.0.0.1";
    options.transports = GetParam().transports;
    options.slot_bytes = 1 << 20;
    options.slots = 16;
    options.peer_timeout = 2000ms;
    return options;
  }
  std::unique_ptr<Transport> make(const TransportOptions& options) { return make_transport(options, &network_); }

  // Before transports are made, as in a server: network cards are told of it.
  const bool reserved_ = SendMemory::of_process().reserve(kSendMemory);
  LoopbackNetwork network_;
  std::unique_ptr<Transport> receiver_ = make(options());
  std::unique_ptr<Transport> sender_ = make(options());
  Collector collector_;
};

TEST_P(TransportContract, carries_messages_of_every_size_unharmed) {
  Lease lease = receiver_->open_lease(collector_.request(kKey, 8)).value_or_throw();
  uint32_t sequence = 0;
  for (const size_t size : {0UL, 1UL, 100UL, 8192UL, 8193UL, 65536UL, 300'001UL, 1UL << 20}) {
    const auto sent = send_and_wait(*sender_, make_send(receiver_->address(), kKey, sequence, size));
    ASSERT_TRUE(sent.ok()) << size << ": " << sent.failure().message;
    auto message = collector_.next();
    ASSERT_TRUE(message) << size;
    EXPECT_EQ(message->header().sequence, sequence);
    EXPECT_EQ(message->header().payload_bytes, size);
    EXPECT_TRUE(has_bytes(*message, pattern(size, sequence)));
    EXPECT_TRUE(message->verify_payload().ok());
    EXPECT_LE(message->announced_at(), message->received_at());
    ++sequence;
  }
  EXPECT_EQ(sender_->counters().messages_sent, sequence);
  EXPECT_EQ(receiver_->counters().staging.messages_received, sequence);
  EXPECT_EQ(receiver_->counters().staging.slots_in_use, 0U);
  EXPECT_EQ(sender_->counters().sends_pending, 0U);
}

TEST_P(TransportContract, carries_payloads_in_memory_made_for_them_and_beside_it) {
  constexpr size_t kMessages = 8, kBytes = 1 << 20;
  Lease lease = receiver_->open_lease(collector_.request(kKey, kMessages)).value_or_throw();
  const std::span<std::byte> region = SendMemory::of_process().region();
  std::vector<PendingSend> sends;
  size_t inside = 0;
  for (uint32_t i = 0; i < kMessages; ++i) {
    sends.push_back(make_send(receiver_->address(), kKey, i, kBytes));
    const std::byte* const at = sends.back().job.payload.bytes.data();
    if (at >= region.data() && at < region.data() + region.size()) ++inside;
  }
  EXPECT_GT(inside, 0U);
  EXPECT_LT(inside, kMessages);
  for (PendingSend& send : sends) ASSERT_TRUE(send_and_wait(*sender_, std::move(send)).ok());
  for (uint32_t i = 0; i < kMessages; ++i) {
    const auto message = collector_.next();
    ASSERT_TRUE(message) << i;
    EXPECT_TRUE(has_bytes(*message, pattern(kBytes, message->header().sequence)));
  }
}

TEST_P(TransportContract, carries_many_messages_with_credit) {
  constexpr uint32_t kMessages = 200;
  constexpr size_t kWindow = 8;
  Lease lease = receiver_->open_lease(collector_.request(kKey, kWindow)).value_or_throw();
  uint32_t sent = 0;
  uint64_t seen = 0;
  for (uint32_t received = 0; received < kMessages; ++received) {
    for (; sent < kMessages && sent < received + kWindow; ++sent) {
      ASSERT_TRUE(sender_->send(make_send(receiver_->address(), kKey, sent, 1000 + 1000 * (sent % 40)).job).ok());
    }
    auto message = collector_.next();
    ASSERT_TRUE(message) << received;
    ASSERT_TRUE(message->verify_payload().ok());
    seen += message->header().sequence;
  }
  EXPECT_EQ(seen, uint64_t{kMessages} * (kMessages - 1) / 2);
  EXPECT_FALSE(collector_.failure(0ms));
}

TEST_P(TransportContract, works_in_both_directions_at_once) {
  Collector other;
  Lease here = receiver_->open_lease(collector_.request(kKey, 4)).value_or_throw();
  Lease there = sender_->open_lease(other.request({8, 1}, 4)).value_or_throw();
  ASSERT_TRUE(sender_->send(make_send(receiver_->address(), kKey, 0, 200'000).job).ok());
  ASSERT_TRUE(receiver_->send(make_send(sender_->address(), {8, 1}, 1, 200'000).job).ok());
  ASSERT_TRUE(collector_.next());
  ASSERT_TRUE(other.next());
}

TEST_P(TransportContract, drops_messages_of_a_dead_generation_and_serves_the_next) {
  Collector next;
  Lease old = receiver_->open_lease(collector_.request({7, 1}, 2)).value_or_throw();
  ASSERT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), {7, 1}, 0, 100'000)).ok());
  ASSERT_TRUE(collector_.next());
  Lease lease = receiver_->open_lease(next.request({7, 2}, 2)).value_or_throw();
  for (const size_t size : {100UL, 100'000UL}) {
    ASSERT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), {7, 1}, 1, size)).ok());
    ASSERT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), {7, 2}, 2, size)).ok());
    auto message = next.next();
    ASSERT_TRUE(message);
    EXPECT_EQ(message->header().sequence, 2U);
  }
  EXPECT_FALSE(collector_.next(0ms));
  EXPECT_EQ(receiver_->counters().staging.late_messages_dropped, 2U);
  EXPECT_EQ(sender_->counters().peer_failures, 0U);
}

TEST_P(TransportContract, fails_a_lease_whose_sender_overruns_its_credit) {
  Lease lease = receiver_->open_lease(collector_.request(kKey, 1)).value_or_throw();
  ASSERT_TRUE(sender_->send(make_send(receiver_->address(), kKey, 0, 50'000).job).ok());
  auto held = collector_.next();
  ASSERT_TRUE(held);
  ASSERT_TRUE(sender_->send(make_send(receiver_->address(), kKey, 1, 50'000).job).ok());
  const auto failure = collector_.failure();
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, ErrorCode::kResourceExhausted);
}

TEST_P(TransportContract, abandoning_frees_the_sender_at_once_and_delays_nobody) {
  TransportOptions slow = options();
  slow.bandwidth_gbps = 0.01;  // the abandoned megabyte alone would take 0.8 s
  const auto sender = make(slow);
  Collector other;
  Lease lease = receiver_->open_lease(collector_.request(kKey, 4)).value_or_throw();
  Lease other_lease = receiver_->open_lease(other.request({8, 1}, 4)).value_or_throw();
  auto big = make_send(receiver_->address(), kKey, 0, 1 << 20);
  auto small = make_send(receiver_->address(), {8, 1}, 1, 1000);
  ASSERT_TRUE(sender->send(std::move(big.job)).ok());
  ASSERT_TRUE(sender->send(std::move(small.job)).ok());
  const auto before = Clock::now();
  sender->abandon(receiver_->address(), kKey);
  ASSERT_EQ(big.ended.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(big.ended.get().failure().code, ErrorCode::kCancelled);
  EXPECT_LT(Clock::now() - before, 100ms);
  ASSERT_TRUE(other.next());
  EXPECT_LT(Clock::now() - before, 500ms);
  lease.close();
  EXPECT_EQ(sender->counters().sends_abandoned, 1U);
}

TEST_P(TransportContract, ends_sends_at_their_deadline) {
  TransportOptions slow = options();
  slow.bandwidth_gbps = 0.001;
  const auto sender = make(slow);
  auto send = make_send(receiver_->address(), kKey, 0, 1 << 20);
  send.job.deadline = Clock::now() + 30ms;
  const auto ended = send_and_wait(*sender, std::move(send));
  EXPECT_EQ(ended.failure().code, ErrorCode::kDeadlineExceeded);
}

TEST_P(TransportContract, names_a_peer_that_cannot_be_reached) {
  const std::string gone = receiver_->address();
  receiver_.reset();
  const auto before = Clock::now();
  const auto ended = send_and_wait(*sender_, make_send(gone, kKey, 0, 100));
  ASSERT_FALSE(ended.ok());
  EXPECT_EQ(ended.failure().code, ErrorCode::kUnavailable);
  EXPECT_NE(ended.failure().message.find(gone), std::string::npos) << ended.failure().message;
  EXPECT_LT(Clock::now() - before, 3s);
}

TEST_P(TransportContract, finds_a_peer_again_after_its_restart) {
  Lease lease = receiver_->open_lease(collector_.request(kKey, 4)).value_or_throw();
  ASSERT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), kKey, 0, 100'000)).ok());
  ASSERT_TRUE(collector_.next());
  lease.close();
  receiver_.reset();
  receiver_ = make(options());
  Lease again = receiver_->open_lease(collector_.request({7, 2}, 4)).value_or_throw();
  ASSERT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), {7, 2}, 1, 100'000)).ok());
  ASSERT_TRUE(collector_.next());
}

TEST_P(TransportContract, an_emulated_link_has_its_bandwidth) {
  TransportOptions slow = options();
  slow.bandwidth_gbps = 0.1;
  const auto sender = make(slow);
  constexpr uint32_t kMessages = 12;
  constexpr size_t kBytes = 262'144;
  Lease lease = receiver_->open_lease(collector_.request(kKey, kMessages)).value_or_throw();
  ASSERT_TRUE(send_and_wait(*sender, make_send(receiver_->address(), kKey, 0, kBytes)).ok());  // connects
  ASSERT_TRUE(collector_.next());
  std::vector<SendJob> jobs;
  for (uint32_t i = 0; i < kMessages; ++i) jobs.push_back(make_send(receiver_->address(), kKey, i, kBytes).job);
  const auto start = Clock::now();
  for (auto& job : jobs) ASSERT_TRUE(sender->send(std::move(job)).ok());
  for (uint32_t i = 0; i < kMessages; ++i) ASSERT_TRUE(collector_.next());
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double ideal = static_cast<double>(kMessages * (kBytes + kMessageHeaderBytes)) * 8 / 1e8;
  EXPECT_GE(seconds, ideal * 0.98);
  EXPECT_LE(seconds, ideal * 1.3);  // what a busy machine adds; the rate itself is exact (sender_test)
  ASSERT_TRUE(eventually([&] { return sender->counters().messages_sent == kMessages + 1; }));
  ASSERT_EQ(sender->peers().size(), 1U);
  EXPECT_NEAR(sender->peers()[0].bandwidth_gbps, 0.1, 0.03);
}

TEST_P(TransportContract, messages_outlive_their_transport) {
  Lease lease = receiver_->open_lease(collector_.request(kKey, 4)).value_or_throw();
  ASSERT_TRUE(send_and_wait(*sender_, make_send(receiver_->address(), kKey, 0, 100'000)).ok());
  auto message = collector_.next();
  ASSERT_TRUE(message);
  receiver_.reset();
  EXPECT_TRUE(message->verify_payload().ok());
}

TEST_P(TransportContract, ends_what_is_pending_when_it_ends) {
  TransportOptions slow = options();
  slow.bandwidth_gbps = 0.001;
  auto sender = make(slow);
  auto send = make_send(receiver_->address(), kKey, 0, 1 << 20);
  ASSERT_TRUE(sender->send(std::move(send.job)).ok());
  sender.reset();
  ASSERT_EQ(send.ended.wait_for(0ms), std::future_status::ready);
  EXPECT_EQ(send.ended.get().failure().code, ErrorCode::kCancelled);
}

INSTANTIATE_TEST_SUITE_P(wires, TransportContract,
                         testing::Values(Wire{"loopback", TransportKind::kLoopback, ""},
                                         Wire{"tcp", TransportKind::kUcx, "tcp"},
                                         Wire{"shared_memory", TransportKind::kUcx, "sm,self"}),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace scd
