#include "common/transport/ucx/lanes.h"

#include <algorithm>
#include <array>
#include <vector>

namespace scd {
namespace {

bool is_rdma(std::string_view resource) {
  static constexpr std::array<std::string_view, 4> kPrefixes{"rc_", "ud_", "dc_", "gga_"};
  return std::ranges::any_of(kPrefixes, [&](std::string_view prefix) { return resource.starts_with(prefix); });
}

// The "transport/device" word of a line, or nothing. UCX appends the path index to a lane's device ("tcp/lo.0").
std::string_view resource_of(std::string_view line) {
  const size_t slash = line.find('/');
  if (slash == std::string_view::npos) return {};
  const size_t before = line.find_last_of(" :", slash);
  const size_t begin = before == std::string_view::npos ? 0 : before + 1;
  const size_t end = std::min(line.find(' ', slash), line.size());
  return line.substr(begin, end - begin);
}

Lanes collect(std::string_view printed, std::string_view marker, bool has_path_index) {
  Lanes lanes;
  std::vector<std::string_view> seen;
  bool all_rdma = true;
  bool all_tcp = true;
  while (!printed.empty()) {
    const size_t newline = std::min(printed.find('\n'), printed.size());
    const std::string_view line = printed.substr(0, newline);
    printed.remove_prefix(std::min(newline + 1, printed.size()));
    const size_t at = line.find(marker);
    if (at == std::string_view::npos) continue;
    std::string_view resource = resource_of(line.substr(at + marker.size()));
    if (has_path_index) resource = resource.substr(0, resource.rfind('.'));
    // The lane that only carries connection management moves no payload.
    const bool management_only = line.find("<unknown>") != std::string_view::npos || resource.empty();
    if (management_only || std::ranges::find(seen, resource) != seen.end()) continue;
    seen.push_back(resource);
    all_rdma = all_rdma && is_rdma(resource);
    all_tcp = all_tcp && resource.starts_with("tcp/");
    lanes.rdma = lanes.rdma || is_rdma(resource);
    lanes.text += (lanes.text.empty() ? "" : " ") + std::string(resource);
  }
  if (has_path_index) lanes.rdma = all_rdma && !seen.empty();
  lanes.tcp = all_tcp && !seen.empty();
  return lanes;
}

}  // namespace

Lanes parse_endpoint_lanes(std::string_view printed) { return collect(printed, "lane[", true); }
Lanes parse_context_resources(std::string_view printed) { return collect(printed, "resource ", false); }

}  // namespace scd
