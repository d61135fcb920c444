#include "common/tokenizer/token_matcher.h"

namespace scd {

void TokenMatcher::add(std::string_view text, size_t index) {
  if (text.empty()) return;
  starts_[static_cast<uint8_t>(text.front())] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [place, is_new] = edges_.try_emplace(edge(node, byte), static_cast<uint32_t>(ends_.size()));
    if (is_new) ends_.push_back(kNone);
    node = place->second;
  }
  if (ends_[node] == kNone) ends_[node] = index;
}

std::optional<TokenMatcher::Match> TokenMatcher::find(std::string_view text, size_t from) const {
  if (edges_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    if (const auto match = match_at(text, begin)) return match;
  }
  return std::nullopt;
}

std::optional<TokenMatcher::Match> TokenMatcher::match_at(std::string_view text, size_t begin) const {
  std::optional<Match> longest;
  uint32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto next = edges_.find(edge(node, text[at]));
    if (next == edges_.end()) break;
    node = next->second;
    if (ends_[node] != kNone) longest = Match{begin, at + 1, ends_[node]};
  }
  return longest;
}

}  // namespace scd
