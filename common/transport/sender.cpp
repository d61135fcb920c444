#include "common/transport/sender.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/base/check.h"

namespace scd {
namespace {

constexpr size_t kRememberedPeers = 256;  // their bandwidth and lanes

}  // namespace

Sender::Sender(const TransportOptions& options, std::function<void()> wake)
    : messages_in_flight_(options.sends_in_flight),
      bytes_in_flight_(options.bytes_in_flight),
      peer_timeout_(options.peer_timeout),
      inbox_(options.send_queue, std::move(wake)),
      shaper_(options.bandwidth_gbps) {}

std::vector<PeerReport> Sender::peers() const {
  std::scoped_lock lock(mutex_);
  std::vector<PeerReport> all;
  for (const auto& [address, report] : reports_) all.push_back(report);
  return all;
}

void Sender::add_counters(TransportCounters& counters) const {
  std::scoped_lock lock(mutex_);
  counters.messages_sent += counters_.messages_sent;
  counters.payload_bytes_sent += counters_.payload_bytes_sent;
  counters.sends_failed += counters_.sends_failed;
  counters.sends_abandoned += counters_.sends_abandoned;
  counters.peer_failures += counters_.peer_failures;
  counters.sends_pending += inbox_.pending();
}

void Sender::poll(Clock::time_point now) {
  for (auto& command : inbox_.take()) {
    if (auto* submission = std::get_if<SendInbox::Submission>(&command)) {
      enqueue(std::move(*submission));
    } else {
      abandon_now(std::get<SendInbox::Abandonment>(command));
    }
  }
  if (now >= earliest_deadline_) expire(now);
}

void Sender::enqueue(SendInbox::Submission submission) {
  const std::string& address = submission.job.peer;
  if (!peers_.contains(address)) {
    if (peers_.size() >= kRememberedPeers) forget_idle_peers();
    std::scoped_lock lock(mutex_);
    reports_[address].address = address;
  }
  addressed_.insert(address);
  Queue& waiting = peers_[address].waiting;
  waiting.push_back({.job = std::move(submission.job),
                     .header = {},
                     .queued_at = submission.queued_at,
                     .started_at = {},
                     .reported = false,
                     .position = {}});
  OutgoingMessage& message = waiting.back();
  message.header = serialize(message.job.header);
  earliest_deadline_ = std::min(earliest_deadline_, message.job.deadline);
}

// Whoever asks for codes names a peer: their number has no other bound.
void Sender::forget_idle_peers() {
  for (auto it = peers_.begin(); it != peers_.end();) {
    const auto& [address, peer] = *it;
    const bool busy =
        !peer.waiting.empty() || !peer.on_wire.empty() || (!crossing_.empty() && crossing_.front().job.peer == address);
    if (!busy) {
      std::scoped_lock lock(mutex_);
      reports_.erase(address);
    }
    it = busy ? std::next(it) : peers_.erase(it);
  }
}

void Sender::abandon_now(const SendInbox::Abandonment& what) {
  const Failure failure{ErrorCode::kCancelled, "the transfer was abandoned"};
  const auto match = [&](const OutgoingMessage& message) {
    return message.job.peer == what.peer && message.key() == what.key;
  };
  const size_t crossing = crossing_.size();
  end_matching(crossing_, false, failure, match);
  if (crossing_.size() < crossing) shaper_.stop(Clock::now());
  const auto peer = peers_.find(what.peer);
  if (peer == peers_.end()) return;
  end_matching(peer->second.waiting, false, failure, match);
  end_matching(peer->second.on_wire, true, failure, match);
}

void Sender::expire(Clock::time_point now) {
  const Failure failure{ErrorCode::kDeadlineExceeded, "the send's deadline passed"};
  const auto match = [&](const OutgoingMessage& message) { return message.job.deadline <= now; };
  earliest_deadline_ = Clock::time_point::max();
  const auto visit = [&](Queue& queue, bool on_wire) {
    end_matching(queue, on_wire, failure, match);
    for (const auto& message : queue) {
      if (!message.reported) earliest_deadline_ = std::min(earliest_deadline_, message.job.deadline);
    }
  };
  const size_t crossing = crossing_.size();
  visit(crossing_, false);
  if (crossing_.size() < crossing) shaper_.stop(now);
  for (auto& [address, peer] : peers_) {
    visit(peer.waiting, false);
    visit(peer.on_wire, true);
  }
}

template <class Match>
void Sender::end_matching(Queue& queue, bool on_wire, const Failure& failure, Match match) {
  for (auto it = queue.begin(); it != queue.end();) {
    const auto current = it++;
    if (!match(*current)) continue;
    if (!current->reported) report(*current, failure);
    if (!on_wire) queue.erase(current);
  }
}

void Sender::report(OutgoingMessage& message, const Result<SendReport>& result) {
  {
    std::scoped_lock lock(mutex_);
    if (result.ok()) {
      counters_.messages_sent += 1;
      counters_.payload_bytes_sent += message.job.payload.bytes.size();
    } else if (result.failure().code == ErrorCode::kCancelled) {
      counters_.sends_abandoned += 1;
    } else {
      counters_.sends_failed += 1;
    }
  }
  message.reported = true;
  inbox_.ended();
  if (const auto on_sent = std::exchange(message.job.on_sent, nullptr)) on_sent(result);
}

bool Sender::may_send(const Peer& peer) const {
  if (peer.waiting.empty() || peer.on_wire.size() >= messages_in_flight_) return false;
  // Two, so that one is announced while the other is carried.
  return peer.on_wire.size() < 2 ||
         peer.bytes_on_wire + peer.waiting.front().job.payload.bytes.size() <= bytes_in_flight_;
}

Sender::Peer* Sender::choose_peer() {
  auto it = peers_.upper_bound(last_served_);
  for (size_t i = 0; i < peers_.size(); ++i, ++it) {
    if (it == peers_.end()) it = peers_.begin();
    if (!may_send(it->second)) continue;
    last_served_ = it->first;
    return &it->second;
  }
  return nullptr;
}

OutgoingMessage* Sender::next(Clock::time_point now) {
  if (!shaper_.limited()) {
    Peer* peer = choose_peer();
    if (peer == nullptr) return nullptr;
    peer->waiting.front().started_at = now;
    return put_on_wire(*peer, peer->waiting, now);
  }
  if (crossing_.empty()) {
    Peer* peer = choose_peer();
    if (peer == nullptr) {
      link_idle_until_ = now;
      return nullptr;
    }
    crossing_.splice(crossing_.begin(), peer->waiting, peer->waiting.begin());
    OutgoingMessage& message = crossing_.front();
    const auto ready_at = std::max(message.queued_at, link_idle_until_);
    message.started_at = std::max(ready_at, crossed_at_);
    crossed_at_ = shaper_.carry(ready_at, kMessageHeaderBytes + message.job.payload.bytes.size());
  }
  if (now < crossed_at_) return nullptr;
  return put_on_wire(peers_[crossing_.front().job.peer], crossing_, now);
}

OutgoingMessage* Sender::put_on_wire(Peer& peer, Queue& from, Clock::time_point now) {
  if (peer.on_wire.empty()) peer.last_progress = now;
  const auto position = from.begin();
  peer.on_wire.splice(peer.on_wire.end(), from, position);
  position->position = position;
  peer.bytes_on_wire += position->job.payload.bytes.size();
  return &*position;
}

void Sender::finish(OutgoingMessage* message, const Result<Done>& result) {
  const auto now = Clock::now();
  Peer& peer = peers_[message->job.peer];
  if (result.ok()) {
    peer.last_progress = now;
    peer.meter.sent(message->job.payload.bytes.size(), message->started_at, now);
    std::scoped_lock lock(mutex_);
    reports_[message->job.peer].bandwidth_gbps = peer.meter.gbps();
  }
  if (!message->reported) {
    if (result.ok()) {
      report(*message, SendReport{message->queued_at, message->started_at, now});
    } else {
      report(*message, result.failure());
    }
  }
  peer.bytes_on_wire -= message->job.payload.bytes.size();
  peer.on_wire.erase(message->position);
}

void Sender::fail_peer(const std::string& peer, const Failure& failure) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  {
    std::scoped_lock lock(mutex_);
    counters_.peer_failures += 1;
  }
  const auto any = [](const OutgoingMessage&) { return true; };
  const size_t crossing = crossing_.size();
  end_matching(crossing_, false, failure, [&](const OutgoingMessage& message) { return message.job.peer == peer; });
  if (crossing_.size() < crossing) shaper_.stop(Clock::now());
  end_matching(it->second.waiting, false, failure, any);
  end_matching(it->second.on_wire, true, failure, any);
}

std::vector<std::string> Sender::stalled_peers(Clock::time_point now) const {
  std::vector<std::string> stalled;
  for (const auto& [address, peer] : peers_) {
    if (!peer.on_wire.empty() && now - peer.last_progress >= peer_timeout_) stalled.push_back(address);
  }
  return stalled;
}

void Sender::set_lanes(const std::string& peer, const std::string& lanes, bool rdma) {
  std::scoped_lock lock(mutex_);
  reports_[peer].lanes = lanes;
  reports_[peer].rdma = rdma;
}

Sender::Clock::time_point Sender::next_wakeup() const {
  Clock::time_point earliest = earliest_deadline_;
  if (!crossing_.empty()) earliest = std::min(earliest, crossed_at_);
  for (const auto& [address, peer] : peers_) {
    if (!peer.on_wire.empty()) earliest = std::min(earliest, peer.last_progress + peer_timeout_);
  }
  return earliest;
}

void Sender::close() {
  inbox_.close();
  poll(Clock::now());
  const Failure failure{ErrorCode::kCancelled, "the transport is ending"};
  const auto any = [](const OutgoingMessage&) { return true; };
  end_matching(crossing_, false, failure, any);
  for (auto& [address, peer] : peers_) {
    end_matching(peer.waiting, false, failure, any);
    end_matching(peer.on_wire, true, failure, any);
  }
}

}  // namespace scd
