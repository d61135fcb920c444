#include "common/transport/sender.h"

#include <gtest/gtest.h>

#include <thread>

#include "common/transport/credit.h"
#include "transport_test_kit.h"

namespace scd {
namespace {

using namespace testing_kit;

constexpr LeaseKey kKey{7, 1};

TransportOptions fast() { return {}; }

TransportOptions shaped(double gbps) {
  TransportOptions options;
  options.bandwidth_gbps = gbps;
  return options;
}

Sender make_sender(const TransportOptions& options) {
  return Sender(options, [] {});
}

bool ended(PendingSend& send) { return send.ended.wait_for(0ms) == std::future_status::ready; }

TEST(LinkShaper, carries_at_its_rate_and_saves_nothing_up) {
  LinkShaper link(0.1);  // 12.5 bytes a microsecond
  const auto start = Clock::now();
  EXPECT_EQ(link.carry(start, 125'000) - start, 10ms);
  EXPECT_EQ(link.carry(start, 125'000) - start, 20ms);
  EXPECT_EQ(link.carry(start + 1s, 125'000) - start, 1010ms);
}

TEST(BandwidthMeter, counts_only_the_time_in_which_the_wire_was_busy) {
  BandwidthMeter meter;
  const auto start = Clock::now();
  EXPECT_EQ(meter.gbps(), 0);
  meter.sent(1'000'000, start, start + 8ms);
  EXPECT_NEAR(meter.gbps(), 1.0, 1e-9);
  meter.sent(1'000'000, start + 5s, start + 5s + 8ms);
  EXPECT_NEAR(meter.gbps(), 1.0, 1e-9);
  // Started together, ended one after the other.
  meter.sent(1'000'000, start + 9s, start + 9s + 8ms);
  meter.sent(1'000'000, start + 9s, start + 9s + 16ms);
  EXPECT_NEAR(meter.gbps(), 1.0, 1e-9);
}

TEST(Sender, hands_out_no_more_than_the_window_and_serves_peers_in_turn) {
  TransportOptions options = fast();
  options.sends_in_flight = 2;
  Sender sender = make_sender(options);
  std::vector<PendingSend> sends;
  for (uint32_t i = 0; i < 8; ++i) {
    sends.push_back(make_send(i < 4 ? "a" : "b", kKey, i, 10));
    ASSERT_TRUE(sender.submit(std::move(sends.back().job)).ok());
  }
  const auto now = Clock::now();
  sender.poll(now);
  std::vector<OutgoingMessage*> out;
  while (OutgoingMessage* message = sender.next(now)) out.push_back(message);
  ASSERT_EQ(out.size(), 4U);
  EXPECT_EQ(out[0]->job.peer, "a");
  EXPECT_EQ(out[1]->job.peer, "b");
  EXPECT_EQ(out[2]->job.peer, "a");
  EXPECT_EQ(out[0]->job.header.sequence, 0U);
  EXPECT_EQ(out[2]->job.header.sequence, 1U);
  sender.finish(out[1], Done{});
  EXPECT_EQ(sender.next(now)->job.header.sequence, 6U);
  EXPECT_TRUE(sends[4].ended.get().ok());
}

// Whoever asks for codes names a peer.
TEST(Sender, forgets_idle_peers_when_there_are_very_many) {
  Sender sender = make_sender(fast());
  PendingSend held = make_send("held", kKey, 0, 10);
  ASSERT_TRUE(sender.submit(std::move(held.job)).ok());
  sender.poll(Clock::now());
  OutgoingMessage* on_wire = sender.next(Clock::now());
  for (uint32_t i = 0; i < 1000; ++i) {
    PendingSend send = make_send("peer " + std::to_string(i), kKey, i, 10);
    ASSERT_TRUE(sender.submit(std::move(send.job)).ok());
    sender.poll(Clock::now());
    sender.finish(sender.next(Clock::now()), Done{});
  }
  EXPECT_LE(sender.peers().size(), 300U);
  sender.finish(on_wire, Done{});
  EXPECT_TRUE(held.ended.get().ok());
}

TEST(Sender, keeps_few_bytes_on_the_wire_but_always_two_messages) {
  TransportOptions options = fast();
  options.bytes_in_flight = 1000;
  Sender sender = make_sender(options);
  std::vector<PendingSend> sends;
  for (const size_t bytes : {800UL, 800UL, 100UL, 300UL, 300UL, 300UL, 300UL}) {
    sends.push_back(make_send("a", kKey, static_cast<uint32_t>(sends.size()), bytes));
    ASSERT_TRUE(sender.submit(std::move(sends.back().job)).ok());
  }
  const auto now = Clock::now();
  sender.poll(now);
  OutgoingMessage* first = sender.next(now);
  OutgoingMessage* second = sender.next(now);
  ASSERT_TRUE(first != nullptr && second != nullptr);
  EXPECT_EQ(sender.next(now), nullptr);
  sender.finish(first, Done{});
  EXPECT_EQ(sender.next(now)->job.header.sequence, 2U);
  EXPECT_EQ(sender.next(now), nullptr);
  sender.finish(second, Done{});
  for (uint32_t sequence : {3U, 4U, 5U}) EXPECT_EQ(sender.next(now)->job.header.sequence, sequence);
  EXPECT_EQ(sender.next(now), nullptr);
}

TEST(Sender, refuses_beyond_its_queue_and_after_its_end) {
  TransportOptions options = fast();
  options.send_queue = 1;
  Sender sender = make_sender(options);
  auto first = make_send("a", kKey, 0, 10);
  ASSERT_TRUE(sender.submit(std::move(first.job)).ok());
  EXPECT_EQ(sender.submit(make_send("a", kKey, 1, 10).job).failure().code, ErrorCode::kResourceExhausted);
  sender.close();
  EXPECT_EQ(first.ended.get().failure().code, ErrorCode::kCancelled);
  EXPECT_EQ(sender.submit(make_send("a", kKey, 2, 10).job).failure().code, ErrorCode::kCancelled);
}

TEST(Sender, ends_what_is_abandoned_and_only_that) {
  TransportOptions options = fast();
  options.sends_in_flight = 1;
  Sender sender = make_sender(options);
  auto on_wire = make_send("a", kKey, 0, 10);
  auto waiting = make_send("a", kKey, 1, 10);
  auto other = make_send("a", {8, 1}, 0, 10);
  auto elsewhere = make_send("b", kKey, 0, 10);  // another peer's request of the same number
  for (auto* send : {&on_wire, &waiting, &other, &elsewhere}) ASSERT_TRUE(sender.submit(std::move(send->job)).ok());
  const auto now = Clock::now();
  sender.poll(now);
  OutgoingMessage* message = sender.next(now);
  sender.abandon("a", kKey);
  sender.poll(now);
  EXPECT_EQ(on_wire.ended.get().failure().code, ErrorCode::kCancelled);
  EXPECT_EQ(waiting.ended.get().failure().code, ErrorCode::kCancelled);
  EXPECT_FALSE(ended(other));
  EXPECT_FALSE(ended(elsewhere));
  EXPECT_FALSE(message->job.payload.bytes.empty());  // the network still reads it
  sender.finish(message, Done{});
  const OutgoingMessage* next[] = {sender.next(now), sender.next(now)};
  EXPECT_EQ(next[0]->job.peer, "b");
  EXPECT_EQ(next[0]->key(), kKey);
  EXPECT_EQ(next[1]->key(), (LeaseKey{8, 1}));
  TransportCounters counters;
  sender.add_counters(counters);
  EXPECT_EQ(counters.sends_abandoned, 2U);
  EXPECT_EQ(counters.messages_sent, 0U);
  EXPECT_EQ(counters.sends_pending, 2U);
}

TEST(Sender, ends_overdue_sends) {
  Sender sender = make_sender(shaped(0.001));
  auto slow = make_send("a", kKey, 0, 1'000'000);
  const auto now = Clock::now();
  slow.job.deadline = now + 10ms;
  ASSERT_TRUE(sender.submit(std::move(slow.job)).ok());
  sender.poll(now);
  EXPECT_EQ(sender.next(now), nullptr);
  EXPECT_EQ(sender.next_wakeup(), now + 10ms);
  sender.poll(now + 10ms);
  EXPECT_EQ(slow.ended.get().failure().code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(sender.next_wakeup(), Clock::time_point::max());
}

TEST(Sender, sees_a_peer_that_takes_nothing) {
  TransportOptions options = fast();
  options.peer_timeout = 100ms;
  Sender sender = make_sender(options);
  auto send = make_send("a", kKey, 0, 10);
  ASSERT_TRUE(sender.submit(std::move(send.job)).ok());
  const auto now = Clock::now();
  sender.poll(now);
  OutgoingMessage* message = sender.next(now);
  EXPECT_TRUE(sender.stalled_peers(now + 99ms).empty());
  EXPECT_EQ(sender.next_wakeup(), now + 100ms);
  ASSERT_EQ(sender.stalled_peers(now + 100ms), std::vector<std::string>{"a"});
  sender.fail_peer("a", {ErrorCode::kUnavailable, "stalled"});
  EXPECT_EQ(send.ended.get().failure().code, ErrorCode::kUnavailable);
  sender.finish(message, Failure{ErrorCode::kUnavailable, "stalled"});
  EXPECT_TRUE(sender.stalled_peers(now + 1s).empty());
}

TEST(Sender, an_emulated_link_is_exact_however_late_its_thread_wakes) {
  Sender sender = make_sender(shaped(0.1));
  constexpr size_t kBytes = 65536;
  constexpr uint32_t kMessages = 50;
  std::vector<PendingSend> sends;
  const auto start = Clock::now();
  for (uint32_t i = 0; i < kMessages; ++i) {
    sends.push_back(make_send("a", kKey, i, kBytes));
    ASSERT_TRUE(sender.submit(std::move(sends.back().job)).ok());
  }
  auto now = Clock::now();
  sender.poll(now);
  for (uint32_t done = 0; done < kMessages;) {
    if (OutgoingMessage* message = sender.next(now)) {
      sender.finish(message, Done{});
      ++done;
    } else {
      now = sender.next_wakeup() + 700us;
    }
  }
  const double seconds = std::chrono::duration<double>(now - start).count();
  const double ideal = static_cast<double>(kMessages * (kBytes + kMessageHeaderBytes)) * 8 / 1e8;
  EXPECT_NEAR(seconds, ideal, ideal * 0.02);
}

TEST(SendCredit, blocks_until_given_or_closed_or_late) {
  SendCredit credit(1);
  EXPECT_TRUE(credit.take(Clock::now()).ok());
  EXPECT_FALSE(credit.try_take());
  EXPECT_EQ(credit.take(Clock::now() + 1ms).failure().code, ErrorCode::kDeadlineExceeded);
  std::jthread receiver([&] { credit.give(2); });
  EXPECT_TRUE(credit.take(Clock::now() + kPatience).ok());
  receiver.join();
  EXPECT_TRUE(credit.try_take());
  std::jthread closer([&] { credit.close(); });
  EXPECT_EQ(credit.take(Clock::now() + kPatience).failure().code, ErrorCode::kCancelled);
}

}  // namespace
}  // namespace scd
