#include "decode_server/generate/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace scd {

StopMatcher::StopMatcher(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {
  for (const std::string& stop : stop_strings_) SCD_CHECK(!stop.empty(), "empty stop string");
}

StopMatcher::Output StopMatcher::push(std::string_view text) {
  pending_ += text;
  size_t first = std::string::npos;
  const std::string* found = nullptr;
  for (const std::string& stop : stop_strings_) {
    const size_t place = pending_.find(stop);
    if (place >= first) continue;
    first = place;
    found = &stop;
  }
  if (found != nullptr) {
    pending_.resize(first);
    return {flush(), true, *found};
  }
  const size_t ready = pending_.size() - held_length();
  Output output{pending_.substr(0, ready), false, {}};
  pending_.erase(0, ready);
  return output;
}

std::string StopMatcher::pass(std::string_view text) {
  pending_ += text;
  return flush();
}

std::string StopMatcher::flush() { return std::exchange(pending_, {}); }

size_t StopMatcher::held_length() const {
  size_t held = 0;
  for (const std::string& stop : stop_strings_) {
    for (size_t length = std::min(stop.size() - 1, pending_.size()); length > held; --length) {
      if (pending_.compare(pending_.size() - length, length, stop, 0, length) == 0) {
        held = length;
        break;
      }
    }
  }
  return held;
}

}  // namespace scd
