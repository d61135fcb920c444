// The sending half that every transport shares: queues per peer, the emulated link, deadlines, cancellation,
// measurement and accounting. The transport only puts on the wire what next() hands out.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/transport/bandwidth_meter.h"
#include "common/transport/link_shaper.h"
#include "common/transport/send_inbox.h"
#include "common/transport/transport.h"

namespace scd {

// One send, from the queue to its end. Its address is stable from next() to finish().
struct OutgoingMessage {
  using Clock = SendReport::Clock;

  SendJob job;
  HeaderBytes header;
  Clock::time_point queued_at;
  Clock::time_point started_at;
  bool reported = false;  // on_sent has been called; only the buffer is still in use
  std::list<OutgoingMessage>::iterator position;

  LeaseKey key() const { return {job.header.request_id, job.header.generation}; }
};

class Sender {
 public:
  using Clock = SendReport::Clock;

  Sender(const TransportOptions& options, std::function<void()> wake);

  // Any thread.
  Result<Done> submit(SendJob job) { return inbox_.submit(std::move(job)); }
  void abandon(const std::string& peer, LeaseKey key) { inbox_.abandon(peer, key); }
  std::vector<PeerReport> peers() const;
  void add_counters(TransportCounters& counters) const;

  // The transport's thread, from here on. Takes in what other threads left and ends what was abandoned or is overdue.
  void poll(Clock::time_point now);
  // Peers for which sends were queued since the last call: connecting can begin while their first message still waits
  // or crosses an emulated link.
  std::set<std::string> take_addressed() { return std::exchange(addressed_, {}); }
  // A message that may go on the wire now, until the peer's window or the link is full. finish() it in any case.
  OutgoingMessage* next(Clock::time_point now);
  void finish(OutgoingMessage* message, const Result<Done>& result);
  // Ends what waits for a lost peer; what is on the wire is reported and stays
  // the transport's to finish. Counts a peer failure. Nothing for a peer never sent to.
  void fail_peer(const std::string& peer, const Failure& failure);
  // Peers whose sends on the wire have made no progress for peer_timeout.
  std::vector<std::string> stalled_peers(Clock::time_point now) const;
  void set_lanes(const std::string& peer, const std::string& lanes, bool rdma);
  // When poll(), next() or stalled_peers() will have something to do; max() when nothing waits for time to pass.
  Clock::time_point next_wakeup() const;
  // Refuses new sends and ends those that wait.
  void close();

 private:
  using Queue = std::list<OutgoingMessage>;

  struct Peer {
    Queue waiting;
    Queue on_wire;
    size_t bytes_on_wire = 0;
    BandwidthMeter meter;
    Clock::time_point last_progress{};
  };

  void enqueue(SendInbox::Submission submission);
  void forget_idle_peers();
  void abandon_now(const SendInbox::Abandonment& what);
  void expire(Clock::time_point now);
  // Ends messages of `queue` that match, with `failure`; those on the wire stay until the network lets go of them.
  template <class Match>
  void end_matching(Queue& queue, bool on_wire, const Failure& failure, Match match);
  void report(OutgoingMessage& message, const Result<SendReport>& result);
  Peer* choose_peer();
  OutgoingMessage* put_on_wire(Peer& peer, Queue& from, Clock::time_point now);

  bool may_send(const Peer& peer) const;

  const size_t messages_in_flight_;
  const size_t bytes_in_flight_;
  const std::chrono::milliseconds peer_timeout_;
  SendInbox inbox_;
  LinkShaper shaper_;

  std::map<std::string, Peer> peers_;
  std::set<std::string> addressed_;
  std::string last_served_;  // peers take turns
  // The message that crosses the emulated link: at most one.
  Queue crossing_;
  Clock::time_point crossed_at_{};
  Clock::time_point link_idle_until_{};  // nothing could cross before this
  Clock::time_point earliest_deadline_ = Clock::time_point::max();

  // What other threads ask about.
  mutable std::mutex mutex_;
  std::map<std::string, PeerReport> reports_;
  TransportCounters counters_;
};

}  // namespace scd
