// Receiver-owned memory in which payloads land, and the leases that say who may write there. Bytes of a dead request
// never reach a live one: a slot goes back to the free list only when neither the network nor a reader holds it, and a
// message whose lease has gone is dropped and counted.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/transport/message.h"

namespace scd {

struct LeaseKey {
  uint64_t request_id = 0;
  uint32_t generation = 0;
  auto operator<=>(const LeaseKey&) const = default;
};

class StagingState;  // the pool's memory and books, private to staging.cpp

// One slot of staging memory, free again when destroyed.
class StagingSlot {
 public:
  StagingSlot() = default;
  StagingSlot(StagingSlot&& other) noexcept;
  StagingSlot& operator=(StagingSlot&& other) noexcept;
  ~StagingSlot();

  std::span<std::byte> bytes() const;  // slot_bytes long

 private:
  friend class StagingState;
  StagingSlot(std::shared_ptr<StagingState> pool, size_t index, LeaseKey key);
  void release();

  // Shared: messages may wait in a later stage when the transport has already ended.
  std::shared_ptr<StagingState> pool_;
  size_t index_ = 0;
  LeaseKey key_;
};

// A complete message; its slot stays taken until this is destroyed. Movable between threads.
class ReceivedMessage {
 public:
  using Clock = std::chrono::steady_clock;

  ReceivedMessage(const MessageHeader& header, StagingSlot slot, Clock::time_point announced_at);

  const MessageHeader& header() const { return header_; }
  std::span<const std::byte> payload() const;
  Clock::time_point announced_at() const { return announced_at_; }  // its header arrived
  Clock::time_point received_at() const { return received_at_; }    // its last byte arrived

  // DATA_LOSS when the payload is not what was encoded. Costs a pass over the bytes: for the thread that rebuilds.
  Result<Done> verify_payload() const;
  // The same message in memory of its own: its slot is free.
  ReceivedMessage without_slot() &&;

 private:
  MessageHeader header_;
  StagingSlot slot_;
  std::vector<std::byte> own_;  // the payload, where there is no slot
  Clock::time_point announced_at_;
  Clock::time_point received_at_;
};

// What a receiver asks for. The callbacks run on the transport's thread: they must not block (push into a queue that
// holds `slots` entries) and may be called until the lease is closed.
struct LeaseRequest {
  LeaseKey key;
  TransferToken token{};
  // Slots set aside for this request: the number of messages the sender may have unacknowledged (its credit).
  size_t slots = 1;
  // Earlier generations of the request stay alive: two peers send at once.
  bool beside_earlier = false;
  std::function<void(ReceivedMessage)> on_message;
  // At most once: the peer that was sending died (UNAVAILABLE), broke the protocol (DATA_LOSS) or overran its credit
  // (RESOURCE_EXHAUSTED). Nothing more will arrive; the lease is still to be closed.
  std::function<void(const Failure&)> on_failure;
};

// The right to receive for one (request, generation). Closing it returns when no callback runs any more (except from
// within one of its own callbacks) and drops whatever arrives later.
class Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease() { close(); }

  void close();
  bool open() const { return pool_ != nullptr; }
  LeaseKey key() const { return key_; }

 private:
  friend class StagingState;
  Lease(std::shared_ptr<StagingState> pool, LeaseKey key);

  // Shared: a lease may outlive the transport it came from.
  std::shared_ptr<StagingState> pool_;
  LeaseKey key_;
};

// A message on its way into a slot: held by the transport from the accepted header to the last byte.
struct Landing {
  MessageHeader header;
  StagingSlot slot;
  ReceivedMessage::Clock::time_point announced_at;

  std::span<std::byte> target() const { return slot.bytes().first(header.payload_bytes); }
};

// What a lease's on_failure says when its sender broke a rule.
Failure credit_failure(const MessageHeader& header);
Failure protocol_failure(const std::string& peer, RejectReason reason);

struct StagingCounters {
  size_t slots = 0;
  size_t slots_in_use = 0;
  size_t slots_reserved = 0;  // by live leases
  size_t slots_left = 0;      // that a further lease may have
  size_t live_leases = 0;
  uint64_t messages_received = 0;
  uint64_t payload_bytes_received = 0;
  uint64_t late_messages_dropped = 0;               // of closed leases and dead generations
  std::array<uint64_t, kRejectReasons> rejected{};  // by RejectReason
};

// Thread-safe. open_lease and counters are for the receiver, the rest for transports.
class StagingPool {
 public:
  // Throws RESOURCE_EXHAUSTED when the memory cannot be had.
  StagingPool(size_t slot_bytes, size_t slots);

  // RESOURCE_EXHAUSTED when not enough slots are left, ALREADY_EXISTS for a live key, INVALID_ARGUMENT for 0 slots or
  // missing callbacks. A later generation of the same request makes the earlier ones dead, unless it is to stand
  // beside them.
  Result<Lease> open_lease(LeaseRequest request);

  // Checks a header against its lease and takes a slot. payload_bytes: what the network announces. Counts refusals.
  // landing.header is filled whenever the header itself was sound.
  RejectReason admit(std::span<const std::byte> header, uint64_t payload_bytes, Landing& landing);
  // Whether the header's token is that of a live or lately closed lease: such a peer is ours, even when late.
  bool is_authentic(const MessageHeader& header) const;
  bool is_live(LeaseKey key) const;
  // All bytes are in place: hands the message over, or drops it when its lease has gone meanwhile.
  void deliver(Landing landing);
  // Tells a live lease that its sender is lost; nothing when it is gone or has been told.
  void fail_lease(LeaseKey key, const Failure& failure);

  size_t slot_bytes() const;
  std::span<std::byte> memory() const;  // all slots, page-aligned: network cards are told of it
  StagingCounters counters() const;

 private:
  // Shared with slots and leases that outlive the transport.
  std::shared_ptr<StagingState> state_;
};

}  // namespace scd
