// The pairs of servers that `scd bench pareto` and `scd bench serve` start: one a codec artifact, over an emulated
// link.
#pragma once

#include <filesystem>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "tools/scd/client.h"
#include "tools/scd/daemon_process.h"

namespace scd {

struct ServerPairOptions {
  std::filesystem::path producer;
  std::filesystem::path producer_adapter;  // empty: none
  std::filesystem::path consumer;
  std::filesystem::path consumer_adapter;  // empty: none
  std::vector<std::filesystem::path> artifacts;
  std::string precision = "auto";
  std::string transports = "tcp";
  int64_t cached_tokens = 0;  // that each KV cache holds, at least
  int64_t code_cache_mib = 2048;
  std::vector<std::string> prefill_settings;  // path=value, over ours
  std::vector<std::string> decode_settings;
};

// Processor time of the servers of a pair.
struct CpuSeconds {
  double prefill = 0;
  double decode = 0;
};

// A prefill and a decode server with a client. Stopped and reaped with its owner.
class ServerPair {
 public:
  // `artifact` empty: none. bandwidth_gbps 0: the link is not capped.
  ServerPair(const ServerPairOptions& options, const std::filesystem::path& artifact, double bandwidth_gbps,
             const std::filesystem::path& folder, const std::stop_token& stop);

  // Throws Error with both servers' last words when the request fails.
  Completion complete(const v1::CompleteRequest& request);

  const ClientOptions& client() const { return client_options_; }
  std::string last_words() const;  // of both servers
  CpuSeconds cpu_seconds() const { return {prefill_.cpu_seconds(), decode_.cpu_seconds()}; }

 private:
  DaemonProcess prefill_;
  DaemonProcess decode_;
  const ClientOptions client_options_;
  CompletionClient client_;
};

// One pair an artifact; one without where there is none. In the order of options.artifacts.
std::vector<std::unique_ptr<ServerPair>> start_pairs(const ServerPairOptions& options, double bandwidth_gbps,
                                                     const std::filesystem::path& folder, const std::stop_token& stop);

}  // namespace scd
