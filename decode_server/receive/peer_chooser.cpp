#include "decode_server/receive/peer_chooser.h"

#include <algorithm>
#include <tuple>
#include <vector>

namespace scd {
namespace {

// What a request weighs at least: its codes have to be sent, too.
constexpr int64_t kLeastTokens = kPrefixBlockTokens;
// What a peer says of its other consumers holds so long.
constexpr std::chrono::seconds kReportHolds{5};

}  // namespace

const char* to_string(ChoiceReason reason) {
  switch (reason) {
    case ChoiceReason::kPrefix: return "prefix";
    case ChoiceReason::kLoad: return "load";
    case ChoiceReason::kFailing: return "failing";
  }
  return "";
}

PeerChooser::PeerChooser(const PrefillOptions& options)
    : outlier_(options.outlier),
      prefix_margin_(options.prefix_margin_tokens),
      prefixes_(static_cast<size_t>(options.remembered_blocks)) {}

PeerId PeerChooser::add() {
  const PeerId id = next_id_++;
  forget_codes(peers_[id]);
  return id;
}

void PeerChooser::drain(PeerId id) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  found->second.draining = true;
  remove_if_done(id);
}

void PeerChooser::undrain(PeerId id) {
  const auto found = peers_.find(id);
  if (found != peers_.end()) found->second.draining = false;
}

void PeerChooser::remove_if_done(PeerId id) {
  const auto found = peers_.find(id);
  if (found->second.draining && found->second.requests == 0) peers_.erase(found);
}

int64_t PeerChooser::load(const Peer& peer, Time now) {
  const bool fresh = peer.tokens_of_others > 0 && now - peer.reported_at < kReportHolds;
  return peer.tokens + (fresh ? peer.tokens_of_others : 0);
}

// Sound ones, or, where there are none, all that were not tried.
std::vector<PeerChooser::Candidate> PeerChooser::candidates(const PeerQuestion& question, Time now) {
  const auto held = prefixes_.find(question.blocks);
  std::vector<Candidate> all;
  for (auto& [id, peer] : peers_) {
    if (peer.draining || question.tried.contains(id)) continue;
    const auto found = held.find(peer.codes);
    const int64_t blocks = found == held.end() ? 0 : static_cast<int64_t>(found->second);
    all.push_back({id, &peer, std::min(blocks * kPrefixBlockTokens, question.tokens), load(peer, now)});
  }
  const bool any_sound = std::ranges::any_of(all, [now](const Candidate& one) { return sound(*one.peer, now); });
  if (any_sound) std::erase_if(all, [now](const Candidate& one) { return !sound(*one.peer, now); });
  return all;
}

std::optional<PeerChoice> PeerChooser::choose(const PeerQuestion& question, Time now) {
  const std::vector<Candidate> all = candidates(question, now);
  if (all.empty()) return std::nullopt;
  // Equals take turns.
  const auto by_load = [](const Candidate& one) {
    return std::tuple(one.load, one.peer->requests, one.peer->last_chosen);
  };
  const Candidate least = std::ranges::min(all, {}, by_load);
  const Candidate longest = std::ranges::min(
      all, {}, [&](const Candidate& one) { return std::tuple_cat(std::tuple(-one.known_tokens), by_load(one)); });
  const bool takes_prefix = longest.known_tokens > least.known_tokens && longest.load - least.load <= prefix_margin_;
  const Candidate& best = takes_prefix ? longest : least;
  const PeerChoice choice{
      .peer = best.id,
      .reason = !sound(*best.peer, now) ? ChoiceReason::kFailing
                : takes_prefix          ? ChoiceReason::kPrefix
                                        : ChoiceReason::kLoad,
      .known_tokens = best.known_tokens,
      .tokens = std::max(question.tokens - best.known_tokens, kLeastTokens),
      .tokens_before = best.load,
  };
  best.peer->last_chosen = ++choices_;
  ++best.peer->requests;
  best.peer->tokens += choice.tokens;
  return choice;
}

void PeerChooser::ended(const PeerChoice& choice) {
  const auto found = peers_.find(choice.peer);
  if (found == peers_.end()) return;
  --found->second.requests;
  found->second.tokens -= choice.tokens;
  remove_if_done(choice.peer);
}

void PeerChooser::remember(PeerId id, std::span<const uint64_t> blocks) {
  const auto found = peers_.find(id);
  if (found != peers_.end()) prefixes_.add(found->second.codes, blocks);
}

// One more must leave a share of the peers, and one of them at least.
bool PeerChooser::may_eject(Time now) const {
  const auto serving = std::ranges::count_if(peers_, [](const auto& entry) { return !entry.second.draining; });
  const auto ejected = std::ranges::count_if(
      peers_, [now](const auto& entry) { return !entry.second.draining && now < entry.second.ejected_until; });
  const double allowed =
      std::min(outlier_.max_ejected_share * static_cast<double>(serving), static_cast<double>(serving - 1));
  return static_cast<double>(ejected + 1) <= allowed;
}

bool PeerChooser::failed(PeerId id, Time now) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return false;
  Peer& peer = found->second;
  forget_codes(peer);
  if (++peer.failures < outlier_.consecutive_failures || now < peer.ejected_until || !may_eject(now)) return false;
  peer.failures = 0;
  // Each such time that passed without an ejection makes up for one.
  if (outlier_.ejection.count() > 0 && peer.ejections_in_a_row > 0) {
    const auto made_up = (now - peer.ejected_until) / outlier_.ejection;
    peer.ejections_in_a_row -= static_cast<int32_t>(std::min<int64_t>(made_up, peer.ejections_in_a_row));
  }
  ++peer.ejections_in_a_row;
  ++peer.ejections;
  peer.ejected_until = now + std::min(outlier_.ejection * peer.ejections_in_a_row, outlier_.max_ejection);
  return true;
}

void PeerChooser::succeeded(PeerId id, Time now) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  found->second.failures = 0;
  found->second.ejected_until = std::min(found->second.ejected_until, now);
}

void PeerChooser::set_up(PeerId id, bool up) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  if (found->second.up && !up) forget_codes(found->second);
  found->second.up = up;
}

void PeerChooser::reported(const PeerChoice& except, int64_t queued_tokens, Time now) {
  const auto found = peers_.find(except.peer);
  if (found == peers_.end()) return;
  const int64_t ours = found->second.tokens - except.tokens;
  found->second.tokens_of_others = std::max<int64_t>(queued_tokens - ours, 0);
  found->second.reported_at = now;
}

std::optional<PeerState> PeerChooser::state(PeerId id, Time now) const {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return std::nullopt;
  const Peer& peer = found->second;
  return PeerState{.draining = peer.draining,
                   .up = peer.up,
                   .ejected = now < peer.ejected_until,
                   .tokens = peer.tokens,
                   .requests = peer.requests,
                   .ejections = peer.ejections};
}

}  // namespace scd
