#include "decode_server/transfer_account.h"

#include <algorithm>

namespace scd {
namespace {

struct Edge {
  ServingClock::time_point at;
  size_t part;
  int change;  // +1 where a span begins, -1 where it ends
};

std::vector<Edge> edges_within(ServingClock::time_point begin, ServingClock::time_point end,
                               std::span<const TransferSpan> spans) {
  std::vector<Edge> edges;
  edges.reserve(2 * spans.size());
  for (const TransferSpan& span : spans) {
    const auto from = std::max(span.begin, begin);
    const auto to = std::min(span.end, end);
    if (from >= to) continue;
    const auto part = static_cast<size_t>(span.part);
    edges.push_back({from, part, +1});
    edges.push_back({to, part, -1});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });
  return edges;
}

double milliseconds(ServingClock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

}  // namespace

PartTimes attribute_time(ServingClock::time_point begin, ServingClock::time_point end,
                         std::span<const TransferSpan> spans) {
  PartTimes times;
  if (end <= begin) return times;
  times.total_ms = milliseconds(end - begin);
  std::array<int, kTransferParts> running{};
  auto owner_of_instant = [&]() -> double& {
    for (size_t part = kTransferParts; part-- > 0;) {
      if (running[part] > 0) return times.part_ms[part];
    }
    return times.orchestration_ms;
  };
  auto at = begin;
  for (const Edge& edge : edges_within(begin, end, spans)) {
    owner_of_instant() += milliseconds(edge.at - at);
    running[edge.part] += edge.change;
    at = edge.at;
  }
  owner_of_instant() += milliseconds(end - at);
  return times;
}

std::chrono::nanoseconds busy_time(std::span<const TransferSpan> spans, TransferPart part) {
  std::chrono::nanoseconds busy{0};
  ServingClock::time_point until = ServingClock::time_point::min();
  for (const TransferSpan& span : spans) {
    if (span.part != part || span.end <= until) continue;
    busy += span.end - std::max(span.begin, until);
    until = span.end;
  }
  return busy;
}

RemoteClock::RemoteClock(ServingClock::time_point start_sent, ServingClock::time_point accepted_received)
    : origin_(start_sent + std::max(accepted_received - start_sent, ServingClock::duration::zero()) / 2) {}

void Timeline::add(TransferPart part, ServingClock::time_point begin, ServingClock::time_point end) {
  std::scoped_lock lock(mutex_);
  spans_.push_back({part, begin, end});
}

void Timeline::sent(uint32_t generation, ServingClock::time_point begin, ServingClock::time_point end) {
  std::scoped_lock lock(mutex_);
  messages_[generation].sent.push_back({TransferPart::kWire, begin, end});
}

void Timeline::arrived(uint32_t generation, ServingClock::time_point begin, ServingClock::time_point end) {
  std::scoped_lock lock(mutex_);
  messages_[generation].arrived.push_back({TransferPart::kWire, begin, end});
}

std::vector<TransferSpan> Timeline::Messages::spans() const {
  std::vector<TransferSpan> from = sent, spans = arrived;
  std::ranges::sort(from, {}, &TransferSpan::begin);
  std::ranges::sort(spans, {}, &TransferSpan::end);
  // Not where one side's account is missing, or too long to be kept whole.
  if (from.size() != spans.size()) {
    spans.insert(spans.end(), from.begin(), from.end());
    return spans;
  }
  for (size_t i = 0; i < spans.size(); ++i) spans[i].begin = std::min(spans[i].begin, from[i].begin);
  return spans;
}

std::vector<TransferSpan> Timeline::spans() const {
  std::scoped_lock lock(mutex_);
  std::vector<TransferSpan> spans = spans_;
  for (const auto& [generation, messages] : messages_) {
    const std::vector<TransferSpan> wire = messages.spans();
    spans.insert(spans.end(), wire.begin(), wire.end());
  }
  return spans;
}

std::vector<TransferSpan> Timeline::wire_of(uint32_t generation) const {
  std::scoped_lock lock(mutex_);
  const auto found = messages_.find(generation);
  if (found == messages_.end()) return {};
  std::vector<TransferSpan> spans = found->second.spans();
  std::ranges::sort(spans, {}, &TransferSpan::begin);
  return spans;
}

}  // namespace scd
