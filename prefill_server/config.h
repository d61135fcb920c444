// What a user sets about a prefill server; configs/prefill.yaml is the dump of the defaults.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

#include "common/config/parts.h"
#include "prefill_server/store/redis_store.h"

namespace scd {

struct PrefillCodecOptions {
  std::filesystem::path artifact;  // directory with encoder/; empty: raw only
  int32_t chunk_tokens = 128;
};

struct CodeCacheOptions {
  RedisOptions redis;
  int64_t memory_mib = 1024;
  int32_t max_uncached_tail_tokens = 128;
};

struct PrefillLimitOptions {
  int32_t max_requests = 64;
  int32_t max_computing = 4;
  int32_t batch_tokens = 256;
  int32_t max_unsent_mib = 64;
  int32_t max_credit_messages = 64;
  std::chrono::milliseconds request_timeout{120000};
  std::chrono::milliseconds drain_timeout{60000};
};

struct PrefillConfig {
  PrefillCodecOptions codec;
  CodeCacheOptions code_cache;
  ModelOptions model;
  std::string device = "cpu";
  int32_t threads = 0;
  KvCacheOptions kv_cache;
  PrefillLimitOptions limits;
  GrpcOptions grpc;
  TransportOptions transport;
  LogOptions log;
  MetricsOptions metrics;

  PrefillConfig();
};

void describe(ConfigVisitor& at, PrefillCodecOptions& codec);
void describe(ConfigVisitor& at, RedisOptions& redis);
void describe(ConfigVisitor& at, CodeCacheOptions& cache);
void describe(ConfigVisitor& at, PrefillLimitOptions& limits);
void describe(ConfigVisitor& at, PrefillConfig& config);

// What no single key can say. Throws Error INVALID_ARGUMENT naming the keys that do not go together.
void check_config(const PrefillConfig& config);

}  // namespace scd
