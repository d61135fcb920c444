// Ends text at a stop string, wherever token boundaries fall: text that may still become one is held back.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace scd {

class StopMatcher {
 public:
  // Empty stop strings are a broken invariant: validation refuses them.
  explicit StopMatcher(std::vector<std::string> stop_strings);

  struct Output {
    std::string text;      // may be sent now; never holds a stop string or the beginning of one
    bool stopped = false;  // a stop string was found: nothing follows `text`
    std::string stop_string;
  };
  Output push(std::string_view text);
  // Text that cannot stop anything yet (min_tokens): all of it passes, together with what was held back.
  std::string pass(std::string_view text);
  // The end came otherwise: what was held back is ordinary text.
  std::string flush();

 private:
  size_t held_length() const;  // of the longest end of pending_ that begins a stop string

  std::vector<std::string> stop_strings_;
  std::string pending_;
};

}  // namespace scd
