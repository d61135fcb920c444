// "host:port", as addresses are written in configurations.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

namespace scd {

// A host and a port of 0 to 65535; "[::1]:0" is one too. Says nothing of whether the host exists.
inline bool is_host_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view port = text.substr(colon + 1);
  const bool digits = std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; });
  return digits && !port.empty() && port.size() <= 5 && std::stoi(std::string(port)) <= 65535;
}

}  // namespace scd
