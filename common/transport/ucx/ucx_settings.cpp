#include "common/transport/ucx/ucx_settings.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace scd {
namespace {

std::vector<std::string> split_list(std::string_view list) {
  std::vector<std::string> words;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (comma > 0) words.emplace_back(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return words;
}

std::string join(const std::vector<std::string>& words) {
  std::string list;
  for (const auto& word : words) list += (list.empty() ? "" : ",") + word;
  return list;
}

bool uses_shared_memory(const std::vector<std::string>& transports) {
  static constexpr std::array<std::string_view, 6> kNames{"all", "sm", "shm", "mm", "posix", "sysv"};
  return transports.empty() || std::ranges::any_of(transports, [](const std::string& name) {
           return std::ranges::find(kNames, name) != kNames.end();
         });
}

bool is_network(const std::string& name) {
  return name == "all" || name == "tcp" || name == "ib" || name.starts_with("rc") || name.starts_with("dc") ||
         name.starts_with("ud");
}

// UCX_TLS for the transports the user named. "rdma" is our word for every InfiniBand or RoCE transport. Shared memory
// alone cannot connect: UCX 1.13 makes connections over an enabled network device, so tcp comes with it.
std::vector<std::string> ucx_transports(const TransportOptions& options) {
  std::vector<std::string> transports = split_list(options.transports);
  if (options.require == TransportRequirement::kRdma) transports = {"rdma", "self"};
  std::ranges::replace(transports, std::string("rdma"), std::string("ib"));
  if (!transports.empty() && std::ranges::none_of(transports, is_network)) transports.emplace_back("tcp");
  return transports;
}

UcxSetting make_setting(std::string key, std::string variable, std::string value) {
  const char* chosen = std::getenv(variable.c_str());
  return {std::move(key), std::move(variable), chosen != nullptr ? chosen : std::move(value), chosen != nullptr};
}

}  // namespace

std::vector<UcxSetting> ucx_settings(const TransportOptions& options) {
  std::vector<UcxSetting> settings;
  settings.push_back(make_setting("TLS", "UCX_TLS", join(ucx_transports(options))));
  std::vector<std::string> transports = split_list(settings.front().value);
  if (transports.empty()) settings.clear();  // UCX chooses
  // Twice per timeout: a peer that vanished without a word is noticed in time.
  settings.push_back(make_setting("KEEPALIVE_INTERVAL", "UCX_KEEPALIVE_INTERVAL",
                                  std::to_string(options.peer_timeout.count() / 2) + "ms"));
  if (uses_shared_memory(transports)) {
    // Without these, error handling (which we insist on) turns shared memory off. CMA reads the sender's buffer even
    // when the sender has given up meanwhile; such bytes fail their CRC.
    settings.push_back(make_setting("MM_ERROR_HANDLING", "UCX_MM_ERROR_HANDLING", "y"));
    settings.push_back(make_setting("MEMORY_INVALIDATE", "UCX_CMA_MEMORY_INVALIDATE", "y"));
  }
  return settings;
}

}  // namespace scd
