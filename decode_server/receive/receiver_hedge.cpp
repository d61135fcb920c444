// A second try beside one that has sent nothing for prefill.hedge_after_ms. The transport's thread decides between
// them: the first message that lands is let through, and from then on only those of its try.
#include <utility>
#include <vector>

#include "common/log/log.h"
#include "decode_server/receive/receiver.h"

namespace scd {

std::optional<ServingClock::time_point> Receiver::hedge_at(const Transfer& transfer) const {
  const Try& lead = transfer.lead;
  const bool asked = lead.asked_at && !lead.waits_for_slots_since && !lead.finished;
  const bool may = transfer.race != nullptr && !transfer.hedged && asked;
  if (!may || transfer.race->decided() != 0) return std::nullopt;
  return *lead.asked_at + args_.config.prefill.hedge_after;
}

void Receiver::hedge_slow_ones() {
  const auto now = ServingClock::now();
  std::vector<uint64_t> slow;
  for (const auto& [id, transfer] : transfers_) {
    const auto at = hedge_at(transfer);
    if (at && *at <= now) slow.push_back(id);
  }
  for (const uint64_t id : slow) {
    Transfer& transfer = transfers_.at(id);
    transfer.hedged = true;
    auto peer = acquire(transfer);
    if (!peer) continue;
    hedges_.fetch_add(1, std::memory_order_relaxed);
    log_info("transfer_hedged", {{"request", id}, {"slow", transfer.lead.peer->address}, {"endpoint", peer->address}});
    transfer.hedge.emplace();
    transfer.hedge->generation = ++transfer.generation;
    transfer.hedge->peer = std::move(peer);
    ask(transfer, *transfer.hedge);
  }
}

void Receiver::settle_races() {
  for (auto& [id, transfer] : transfers_) {
    if (!transfer.hedge) continue;
    const uint32_t winner = transfer.race->decided();
    if (winner == 0) continue;
    if (winner == transfer.hedge->generation) {
      promote_hedge(transfer);
      continue;
    }
    drop_hedge(transfer);
  }
}

// Whether a message of this try goes on to the compute thread; on the transport's thread.
bool Receiver::enters(Race& race, uint32_t generation) {
  const bool was_open = race.decided() == 0;
  if (!race.admits(generation)) return false;
  // A full inbox means that the stage's thread is awake, and looks anyway.
  if (was_open) (void)inbox_.try_push(Look{});
  return true;
}

void Receiver::drop_hedge(Transfer& transfer) {
  args_.metrics.hedges.of({"lost"})->add();
  close(transfer, *transfer.hedge);
  transfer.hedge.reset();
}

// The hedge takes the lead's place. False, and no hedge is left, where there is none or the lead's codes are in use.
bool Receiver::promote_hedge(Transfer& transfer) {
  if (!transfer.hedge) return false;
  if (!transfer.race->admits(transfer.hedge->generation)) {
    drop_hedge(transfer);
    return false;
  }
  args_.metrics.hedges.of({"won"})->add();
  close(transfer, transfer.lead);
  transfer.lead = std::move(*transfer.hedge);
  transfer.hedge.reset();
  const TransferKey key = transfer.key(transfer.lead);
  args_.compute.transfer_restarted(key);
  if (transfer.lead.untold) args_.compute.transfer_accepted(key, std::move(*transfer.lead.untold));
  transfer.lead.untold.reset();
  return true;
}

}  // namespace scd
