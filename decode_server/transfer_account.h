// Where the time until the first token went. Work of several kinds overlaps (that is the point of the system), so each
// instant is given to exactly one part: the running one closest to the first token. What nobody was working on is
// orchestration: the hand-over's own cost.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <vector>

namespace scd {

using ServingClock = std::chrono::steady_clock;

// By rising priority: of two parts that run at one instant, the later enumerator owns it.
enum class TransferPart : uint8_t { kQueue, kPrefill, kEncode, kWire, kRebuild, kSuffix, kFirstStep };
inline constexpr size_t kTransferParts = 7;

struct TransferSpan {
  TransferPart part = TransferPart::kQueue;
  ServingClock::time_point begin;
  ServingClock::time_point end;
};

struct PartTimes {
  std::array<double, kTransferParts> part_ms{};  // by TransferPart
  double orchestration_ms = 0;
  double total_ms = 0;  // the sum of all the others

  double of(TransferPart part) const { return part_ms[static_cast<size_t>(part)]; }
};

// Splits [begin, end) among the parts. Spans may overlap, nest, repeat and stick out; empty and reversed ones count
// nothing.
PartTimes attribute_time(ServingClock::time_point begin, ServingClock::time_point end,
                         std::span<const TransferSpan> spans);

// How long at least one span of the part ran; spans sorted by their beginning.
std::chrono::nanoseconds busy_time(std::span<const TransferSpan> spans, TransferPart part);

// Puts instants of the prefill server, which counts from the moment it received Start, on this server's clock. The
// prefill server answers Start with Accepted at once and both ways are taken to be equally long, so Start was received
// in the middle of the round trip.
class RemoteClock {
 public:
  RemoteClock(ServingClock::time_point start_sent, ServingClock::time_point accepted_received);
  ServingClock::time_point place(std::chrono::nanoseconds since_start) const { return origin_ + since_start; }

 private:
  ServingClock::time_point origin_;
};

// The spans of one request, added by whichever thread did the work.
class Timeline {
 public:
  void add(TransferPart part, ServingClock::time_point begin, ServingClock::time_point end);
  // A message of a try (the transfer's generation): its turn on the sender's link and the end of the send, as the
  // prefill server says; its header's arrival and its last byte's, as they were here.
  void sent(uint32_t generation, ServingClock::time_point begin, ServingClock::time_point end);
  void arrived(uint32_t generation, ServingClock::time_point begin, ServingClock::time_point end);
  // A message is on the wire from its turn until it has arrived: a send ends when the kernel has taken the bytes, and
  // may have much of them still to send. Messages arrive in the order they were sent in.
  std::vector<TransferSpan> spans() const;
  // Of the messages of one try; by their beginning.
  std::vector<TransferSpan> wire_of(uint32_t generation) const;

 private:
  struct Messages {
    std::vector<TransferSpan> sent, arrived;
    std::vector<TransferSpan> spans() const;
  };

  mutable std::mutex mutex_;
  std::map<uint32_t, Messages> messages_;  // by generation
  std::vector<TransferSpan> spans_;
};

}  // namespace scd
