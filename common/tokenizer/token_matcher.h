// Finds any of a set of strings in a text: the leftmost, and of those the longest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace scd {

class TokenMatcher {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    size_t index = 0;  // as given to add()
  };

  // Of equal texts the first one added counts; an empty text is never found.
  void add(std::string_view text, size_t index);
  std::optional<Match> find(std::string_view text, size_t from) const;

 private:
  static constexpr size_t kNone = ~size_t{0};
  static uint64_t edge(uint32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
  }
  std::optional<Match> match_at(std::string_view text, size_t begin) const;

  std::array<bool, 256> starts_{};                // bytes some text starts with
  std::unordered_map<uint64_t, uint32_t> edges_;  // (node, byte) -> node; node 0 is the root
  std::vector<size_t> ends_ = {kNone};            // per node: index of the text that ends there
};

}  // namespace scd
