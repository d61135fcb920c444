#include "prefill_server/store/redis_reply_guard.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace scd {
namespace {

constexpr size_t kLongestHead = 24;  // a kind and a number

Failure refusal(const std::string& what) { return {ErrorCode::kDataLoss, what}; }

}  // namespace

Result<Done> RedisReplyGuard::take(std::span<const char> bytes) {
  taken_ += bytes.size();
  if (taken_ > limits_.all_bytes) {
    return refusal("answers of more than " + std::to_string(limits_.all_bytes) + " bytes");
  }
  while (!bytes.empty()) {
    if (skip_ > 0) {
      const size_t skipped = std::min(skip_, bytes.size());
      skip_ -= skipped;
      bytes = bytes.subspan(skipped);
      continue;
    }
    const char byte = bytes.front();
    bytes = bytes.subspan(1);
    // Lines end where hiredis ends them, or the two would read different things.
    if (after_return_ && byte == '\n') {
      if (auto sound = end_line(); !sound) return sound;
      continue;
    }
    after_return_ = byte == '\r';
    ++line_bytes_;
    if (line_.size() < kLongestHead) line_.push_back(byte);
  }
  return Done{};
}

Result<Done> RedisReplyGuard::end_line() {
  const std::string line = std::exchange(line_, {});
  const size_t length = std::exchange(line_bytes_, 0) - 1;  // without the carriage return
  after_return_ = false;
  const char kind = length == 0 ? '\0' : line.front();
  if (kind == '+' || kind == '-' || kind == ':') return Done{};
  if (kind != '$' && kind != '*') return refusal("an answer of an unknown kind");
  int64_t number = 0;
  const char* const first = line.data() + 1;
  const char* const last = line.data() + std::min(length, line.size());
  const auto [end, error] = std::from_chars(first, last, number);
  if (length >= kLongestHead || error != std::errc{} || end != last || number < -1) {
    return refusal("an answer whose length is no number");
  }
  if (number == -1) return Done{};  // nothing
  if (kind == '*') {
    if (number > limits_.elements - elements_) {
      return refusal("arrays of more than " + std::to_string(limits_.elements) + " elements");
    }
    elements_ += number;
    return Done{};
  }
  if (static_cast<uint64_t>(number) > limits_.value_bytes) {
    return refusal("a text of " + std::to_string(number) + " bytes; at most " + std::to_string(limits_.value_bytes) +
                   " are expected");
  }
  skip_ = static_cast<size_t>(number) + 2;
  return Done{};
}

}  // namespace scd
