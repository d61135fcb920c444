#include "decode_server/rebuild/kept_codes.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace scd {
namespace {

// Larger messages are keys and values as they are: copying them costs about what a link does that is fast enough.
constexpr size_t kMostBytesOfMessage = size_t{128} << 10;

}  // namespace

void KeptCodes::begin(const TransferPlan& plan) {
  clear();
  if (budget_.limit_bytes > 0) plan_ = plan;
}

void KeptCodes::add(ReceivedMessage message) {
  if (!plan_) return;
  const size_t bytes = message.payload().size();
  if (bytes > kMostBytesOfMessage || budget_.used_bytes + bytes > budget_.limit_bytes) return clear();
  budget_.used_bytes += bytes;
  bytes_ += bytes;
  messages_.push_back(std::move(message).without_slot());
}

void KeptCodes::clear() {
  budget_.used_bytes -= std::exchange(bytes_, 0);
  messages_.clear();
  plan_.reset();
}

// Of a chunk that is held in part, all is sent.
int64_t KeptCodes::first_token(int64_t held_tokens) const {
  return std::max(plan_->first_token, held_tokens / plan_->chunk_tokens * plan_->chunk_tokens);
}

bool KeptCodes::complete(int64_t held_tokens) const {
  if (!plan_ || held_tokens >= plan_->handover_tokens || held_tokens < plan_->held_tokens) return false;
  const int64_t first = first_token(held_tokens);
  const int64_t chunks = (plan_->handover_tokens - 1) / plan_->chunk_tokens - first / plan_->chunk_tokens + 1;
  const auto here = std::ranges::count_if(
      messages_, [&](const ReceivedMessage& message) { return message.header().first_token >= first; });
  return here == chunks * std::ssize(plan_->layers.units);
}

TransferPlan KeptCodes::plan(int64_t held_tokens) const {
  TransferPlan plan = *plan_;
  plan.first_token = first_token(held_tokens);
  plan.held_tokens = held_tokens;
  return plan;
}

std::vector<ReceivedMessage> KeptCodes::take(int64_t held_tokens) {
  const int64_t first = first_token(held_tokens);
  const auto wanted = std::partition(messages_.begin(), messages_.end(), [&](const ReceivedMessage& message) {
    return message.header().first_token < first;
  });
  std::vector<ReceivedMessage> taken(std::make_move_iterator(wanted), std::make_move_iterator(messages_.end()));
  messages_.erase(wanted, messages_.end());
  for (const ReceivedMessage& message : taken) {
    bytes_ -= message.payload().size();
    budget_.used_bytes -= message.payload().size();
  }
  return taken;
}

}  // namespace scd
