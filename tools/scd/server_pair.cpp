#include "tools/scd/server_pair.h"

#include "common/base/error.h"

namespace scd {
namespace {

constexpr int64_t kPageTokens = 16;
constexpr std::chrono::minutes kPatience{10};  // 0.1 Gbit/s and a long prompt take their time

std::vector<std::string> common_settings(const ServerPairOptions& options, const std::filesystem::path& artifact) {
  const int64_t pages = 64 + options.cached_tokens / kPageTokens + 1;
  const auto patience_ms = std::chrono::milliseconds(kPatience).count();
  return {"grpc.listen=127.0.0.1:0",
          "transport.listen_host=127.0.0.1",
          "transport.transports=" + options.transports,
          "codec.artifact=" + artifact.string(),
          "model.precision=" + options.precision,
          "kv_cache.pages=" + std::to_string(pages),
          "kv_cache.gpu_memory_fraction=0",
          "limits.request_timeout_ms=" + std::to_string(patience_ms),
          "limits.drain_timeout_ms=2000"};
}

std::vector<std::string> with(std::vector<std::string> settings, std::vector<std::string> own,
                              const std::vector<std::string>& asked) {
  settings.insert(settings.end(), own.begin(), own.end());
  settings.insert(settings.end(), asked.begin(), asked.end());
  return settings;
}

std::vector<std::string> prefill_settings(const ServerPairOptions& options, const std::filesystem::path& artifact,
                                          double bandwidth_gbps) {
  return with(common_settings(options, artifact),
              {"link.bandwidth_gbps=" + std::to_string(bandwidth_gbps), "model.directory=" + options.producer.string(),
               "model.adapter=" + options.producer_adapter.string(),
               "code_cache.memory_mib=" + std::to_string(options.code_cache_mib)},
              options.prefill_settings);
}

// A codec that fails must not be measured as the fallback it became. Other settings as in configs/one_box.
std::vector<std::string> decode_settings(const ServerPairOptions& options, const std::filesystem::path& artifact,
                                         const std::string& prefill_address) {
  return with(common_settings(options, artifact),
              {"model.directory=" + options.consumer.string(), "model.adapter=" + options.consumer_adapter.string(),
               "prefill.endpoints=[" + prefill_address + "]", "codec.mode=raw", "fallback.local_prefill=false",
               "transport.slot_bytes=1048576", "transport.slots=128"},
              options.decode_settings);
}

ClientOptions client_options(const std::string& server) {
  ClientOptions options;
  options.server = server;
  options.timeout = kPatience;
  return options;
}

}  // namespace

ServerPair::ServerPair(const ServerPairOptions& options, const std::filesystem::path& artifact, double bandwidth_gbps,
                       const std::filesystem::path& folder, const std::stop_token& stop)
    : prefill_({"prefill_server", folder, prefill_settings(options, artifact, bandwidth_gbps)}, stop),
      decode_({"decode_server", folder, decode_settings(options, artifact, prefill_.address())}, stop),
      client_options_(client_options(decode_.address())),
      client_(client_options_) {}

Completion ServerPair::complete(const v1::CompleteRequest& request) {
  try {
    return client_.complete(request);
  } catch (const Error& error) {
    throw Error(error.code(), std::string(error.what()) + "\n" + last_words());
  }
}

std::string ServerPair::last_words() const {
  return "last words of decode_server:\n" + decode_.last_words() + "\nlast words of prefill_server:\n" +
         prefill_.last_words();
}

std::vector<std::unique_ptr<ServerPair>> start_pairs(const ServerPairOptions& options, double bandwidth_gbps,
                                                     const std::filesystem::path& folder, const std::stop_token& stop) {
  std::vector<std::filesystem::path> artifacts = options.artifacts;
  if (artifacts.empty()) artifacts.emplace_back();
  std::vector<std::unique_ptr<ServerPair>> pairs;
  for (size_t i = 0; i < artifacts.size(); ++i) {
    const auto own = folder / std::to_string(i);
    std::filesystem::remove_all(own);  // the last bandwidth's port files
    std::filesystem::create_directories(own);
    pairs.push_back(std::make_unique<ServerPair>(options, artifacts[i], bandwidth_gbps, own, stop));
  }
  return pairs;
}

}  // namespace scd
