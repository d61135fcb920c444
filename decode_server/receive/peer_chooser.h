// Which of the prefill servers is asked next: the one that has codes of the longest beginning of the prompt, unless it
// has much more to compute than others; else the one with the least to compute. Those that are down, or have failed
// requests (outlier ejection as Envoy's: a growing time, never more than a share, never the last one), come only when
// no other is left. No clock and no connection of its own: callers say what happened, and when.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "decode_server/config.h"
#include "decode_server/receive/prefix_memory.h"
#include "decode_server/transfer_account.h"

namespace scd {

using PeerId = uint64_t;  // never used again

// Why a peer was chosen.
enum class ChoiceReason : uint8_t {
  kPrefix,   // it has more of the prompt than the others
  kLoad,     // it has the least to compute
  kFailing,  // no sound one is left
};
const char* to_string(ChoiceReason reason);

struct PeerQuestion {
  int64_t tokens = 0;                // to hand over
  std::span<const uint64_t> blocks;  // prefix_blocks() of them
  std::set<PeerId> tried{};          // not these
};

struct PeerChoice {
  PeerId peer = 0;
  ChoiceReason reason = ChoiceReason::kLoad;
  int64_t known_tokens = 0;   // of which it has codes, most likely
  int64_t tokens = 0;         // it has to compute; to be given back to ended()
  int64_t tokens_before = 0;  // that it had to compute already
};

struct PeerState {
  bool draining = false;
  bool up = true;
  bool ejected = false;
  int64_t tokens = 0;  // under way for this server
  int32_t requests = 0;
  uint64_t ejections = 0;
};

// Not thread-safe.
class PeerChooser {
 public:
  using Time = ServingClock::time_point;

  explicit PeerChooser(const PrefillOptions& options);

  PeerId add();
  // No new requests; gone when its last one has ended.
  void drain(PeerId peer);
  void undrain(PeerId peer);
  bool gone(PeerId peer) const { return !peers_.contains(peer); }

  std::optional<PeerChoice> choose(const PeerQuestion& question, Time now);
  void ended(const PeerChoice& choice);
  // The peer has, or will have, codes of these blocks.
  void remember(PeerId peer, std::span<const uint64_t> blocks);

  // What requests came to. True when it was ejected for it.
  bool failed(PeerId peer, Time now);
  void succeeded(PeerId peer, Time now);
  // What health checks and connections say; one that was down may have lost its codes.
  void set_up(PeerId peer, bool up);
  // It says how many tokens it has to compute, those of this server included, but not those of `except`.
  void reported(const PeerChoice& except, int64_t queued_tokens, Time now);

  std::optional<PeerState> state(PeerId peer, Time now) const;

 private:
  struct Peer {
    PrefixMemory::Holder codes = 0;  // its code cache, as PrefixMemory knows it
    bool draining = false;
    bool up = true;
    int32_t requests = 0;
    int64_t tokens = 0;
    int64_t tokens_of_others = 0;  // as of `reported_at`
    Time reported_at{};
    int32_t failures = 0;  // in a row
    int32_t ejections_in_a_row = 0;
    Time ejected_until{};
    uint64_t ejections = 0;
    uint64_t last_chosen = 0;
  };
  struct Candidate {
    PeerId id;
    Peer* peer;
    int64_t known_tokens;
    int64_t load;
  };
  static bool sound(const Peer& peer, Time now) { return peer.up && now >= peer.ejected_until; }
  static int64_t load(const Peer& peer, Time now);
  std::vector<Candidate> candidates(const PeerQuestion& question, Time now);
  bool may_eject(Time now) const;
  void forget_codes(Peer& peer) { peer.codes = next_codes_++; }
  void remove_if_done(PeerId id);

  const OutlierOptions outlier_;
  const int64_t prefix_margin_;
  std::map<PeerId, Peer> peers_;
  PrefixMemory prefixes_;
  PeerId next_id_ = 1;
  PrefixMemory::Holder next_codes_ = 1;
  uint64_t choices_ = 0;
};

}  // namespace scd
