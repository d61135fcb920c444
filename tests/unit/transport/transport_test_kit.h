// What the transport tests share: messages with known bytes, and a receiver that collects.
#pragma once

#include <chrono>
#include <cstddef>
#include <future>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/crc32c.h"
#include "common/threads/bounded_queue.h"
#include "common/transport/transport.h"

namespace scd::testing_kit {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

inline constexpr TransferToken kToken{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
inline constexpr std::chrono::seconds kPatience{5};  // far beyond what a passing test needs

// Bytes that differ from message to message and from place to place.
inline ByteBuffer pattern(size_t size, uint32_t seed) {
  ByteBuffer bytes(size);
  uint32_t state = seed * 2654435761U + 1;
  for (auto& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

inline MessageHeader header_for(LeaseKey key, uint32_t sequence = 0) {
  MessageHeader header;
  header.request_id = key.request_id;
  header.generation = key.generation;
  header.token = kToken;
  header.sequence = sequence;
  return header;
}

// A send whose end can be waited for.
struct PendingSend {
  SendJob job;
  std::future<Result<SendReport>> ended;
};

inline PendingSend make_send(const std::string& peer, LeaseKey key, uint32_t sequence, size_t bytes) {
  PendingSend send;
  auto ended = std::make_shared<std::promise<Result<SendReport>>>();
  send.ended = ended->get_future();
  send.job.peer = peer;
  send.job.header = header_for(key, sequence);
  send.job.payload = SharedBytes::from(pattern(bytes, sequence));
  send.job.header.payload_crc = crc32c(send.job.payload.bytes);
  send.job.on_sent = [ended](const Result<SendReport>& result) { ended->set_value(result); };
  return send;
}

// Sends and waits for the sender's side to end.
inline Result<SendReport> send_and_wait(Transport& from, PendingSend send) {
  const Result<Done> accepted = from.send(std::move(send.job));
  if (!accepted.ok()) return accepted.failure();
  if (send.ended.wait_for(kPatience) != std::future_status::ready) {
    return Failure{ErrorCode::kUnknown, "the test's patience ended"};
  }
  return send.ended.get();
}

// Collects what a lease receives.
class Collector {
 public:
  LeaseRequest request(LeaseKey key, size_t slots, const TransferToken& token = kToken) {
    return {.key = key,
            .token = token,
            .slots = slots,
            .on_message = [this](ReceivedMessage message) { messages_.try_push(std::move(message)); },
            .on_failure = [this](const Failure& failure) { failures_.try_push(failure); }};
  }
  std::optional<ReceivedMessage> next(std::chrono::milliseconds patience = kPatience) {
    return messages_.pop_until(Clock::now() + patience);
  }
  std::optional<Failure> failure(std::chrono::milliseconds patience = kPatience) {
    return failures_.pop_until(Clock::now() + patience);
  }

 private:
  BoundedQueue<ReceivedMessage> messages_{4096};
  BoundedQueue<Failure> failures_{16};
};

inline bool has_bytes(const ReceivedMessage& message, const ByteBuffer& expected) {
  const auto payload = message.payload();
  return std::equal(payload.begin(), payload.end(), expected.begin(), expected.end());
}

// Polls a condition that another thread makes true.
template <class Condition>
bool eventually(Condition condition, std::chrono::milliseconds patience = kPatience) {
  std::promise<void> never;
  const auto pause = never.get_future();
  for (const auto deadline = Clock::now() + patience; Clock::now() < deadline; pause.wait_for(1ms)) {
    if (condition()) return true;
  }
  return condition();
}

}  // namespace scd::testing_kit
