// The codes of a prompt as they came, in memory of this server's own, so that a request that gave its pages up has them
// filled again without asking for the codes anew. They are small beside the pages they stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/transport/staging.h"
#include "decode_server/stages.h"

namespace scd {

// What all requests' codes may take. Used by one thread.
struct KeptCodesBudget {
  size_t limit_bytes = 0;
  size_t used_bytes = 0;
};

class KeptCodes {
 public:
  explicit KeptCodes(KeptCodesBudget& budget) : budget_(budget) {}
  ~KeptCodes() { clear(); }
  KeptCodes(const KeptCodes&) = delete;
  KeptCodes& operator=(const KeptCodes&) = delete;

  // Forgets what it has; what follows is of this transfer.
  void begin(const TransferPlan& plan);
  // Frees the message's slot. All are dropped when there is no room for one, or one is not small: some are worth
  // nothing.
  void add(ReceivedMessage message);
  void clear();

  // Everything is here that a prefill server would send to whoever holds the first tokens.
  bool complete(int64_t held_tokens) const;
  // What it would announce, and would send; those come back with add() when they were rebuilt.
  TransferPlan plan(int64_t held_tokens) const;
  std::vector<ReceivedMessage> take(int64_t held_tokens);

 private:
  int64_t first_token(int64_t held_tokens) const;

  KeptCodesBudget& budget_;
  std::optional<TransferPlan> plan_;
  std::vector<ReceivedMessage> messages_;
  size_t bytes_ = 0;
};

}  // namespace scd
