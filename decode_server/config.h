// What a user sets about a decode server; configs/decode.yaml is the dump of the defaults.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/config/parts.h"
#include "common/config/visitor.h"

namespace scd {

// When a prefill server that fails requests is left alone, in the manner of Envoy's outlier detection.
struct OutlierOptions {
  int32_t consecutive_failures = 1;
  std::chrono::milliseconds ejection{1000};  // grows with each ejection soon after the last
  std::chrono::milliseconds max_ejection{60000};
  double max_ejected_share = 0.5;  // one is always left
};

enum class LocalPrefill : uint8_t { kOff, kAuto };

struct PrefillOptions {
  std::vector<std::string> endpoints;  // host:port of prefill servers' gRPC; a name stands for all its addresses
  std::chrono::milliseconds resolve_every{10000};
  std::chrono::milliseconds health_every{2000};      // 0: no checks
  std::chrono::milliseconds silence_timeout{30000};  // neither an event nor a message for so long: the peer is lost
  OutlierOptions outlier;
  int32_t prefix_margin_tokens = 4096;
  int32_t remembered_blocks = 65536;         // of prompts, to know which peer has seen them
  std::chrono::milliseconds hedge_after{0};  // 0: never
  LocalPrefill local = LocalPrefill::kAuto;
  int32_t credit_messages = 32;  // staging slots of one request, at most
  int32_t fewest_credit_messages() const { return std::min(credit_messages, 8); }
};

// What happens when a prefill server does not deliver; rungs from top to bottom.
struct FallbackOptions {
  bool other_endpoint = true;
  bool local_prefill = true;
  int32_t local_prefill_max_tokens = 8192;
};

// What stays of finished requests for those that begin with the same tokens.
struct PrefixCacheOptions {
  bool enabled = true;
  double max_share = 1;                    // of the KV cache's pages
  int32_t max_uncached_tail_tokens = 128;  // so little behind a prefix that is here is computed here
};

struct LimitOptions {
  int32_t max_running = 64;
  int32_t max_waiting = 256;
  std::chrono::milliseconds request_timeout{120000};
  std::chrono::milliseconds drain_timeout{60000};
  int32_t prefill_chunk_tokens = 256;
  int32_t kept_codes_mib = 256;
  int32_t max_batched_tokens = 0;  // 0: step_tokens() chooses
  int32_t recorded_batch = 64;
  int32_t step_tokens(bool on_gpu) const { return max_batched_tokens > 0 ? max_batched_tokens : on_gpu ? 2048 : 128; }
};

// One of the models that requests can name, all of one base.
struct ServedModelOptions {
  std::string name;
  std::filesystem::path directory = {};  // empty: model.directory; else the same base
  std::filesystem::path adapter = {};    // a PEFT LoRA adapter, not merged; empty: the base itself
  std::filesystem::path artifact = {};   // empty: codec.artifact
};

struct DecodeConfig {
  CodecOptions codec;
  PrefillOptions prefill;
  FallbackOptions fallback;
  ModelOptions model;
  std::vector<ServedModelOptions> models;
  bool model_admin = false;
  std::string device = "cpu";
  int32_t threads = 0;
  KvCacheOptions kv_cache;
  PrefixCacheOptions prefix_cache;
  LimitOptions limits;
  GrpcOptions grpc;
  TransportOptions transport;
  LogOptions log;
  MetricsOptions metrics;

  DecodeConfig();
};

void describe(ConfigVisitor& at, OutlierOptions& outlier);
void describe(ConfigVisitor& at, PrefillOptions& prefill);
void describe(ConfigVisitor& at, FallbackOptions& fallback);
void describe(ConfigVisitor& at, PrefixCacheOptions& cache);
void describe(ConfigVisitor& at, LimitOptions& limits);
void describe(ConfigVisitor& at, ServedModelOptions& model);
void describe(ConfigVisitor& at, DecodeConfig& config);

// Beside the base's weights: now, or loaded later.
bool may_have_adapters(const DecodeConfig& config);
// What no single key can say. Throws Error INVALID_ARGUMENT naming the keys that do not go together.
void check_config(const DecodeConfig& config);
// As check_files() of common/config, of the models.
void check_model_files(const DecodeConfig& config);
// The name of one more model. Throws Error INVALID_ARGUMENT.
void check_model_name(const std::string& field, const std::string& name);

}  // namespace scd
