#include "prefill_server/config.h"

#include <string>

#include "common/base/error.h"

namespace scd {

PrefillConfig::PrefillConfig() {
  grpc.listen = "127.0.0.1:50052";
  // Nothing is received here: staging would be memory for nobody.
  transport.slots = 1;
}

void describe(ConfigVisitor& at, PrefillCodecOptions& codec) {
  at.path("artifact", codec.artifact,
          "Directory that scd calibrate wrote; empty: only codecs without one are offered.");
  at.number("chunk_tokens", codec.chunk_tokens, {16, 256},
            "Tokens encoded, stored and sent together; a multiple of 16. Smaller overlaps better, larger costs fewer "
            "messages.");
}

void describe(ConfigVisitor& at, RedisOptions& redis) {
  at.texts(
      "servers", redis.servers,
      "Redis or Valkey servers in which prefill servers keep codes for each other: redis://host:port, "
      "redis://host:port/database or unix:/path; each code is on one of them, so all prefill servers need the same "
      "list. None: codes stay in this server.");
  at.flag(
      "cluster", redis.cluster,
      "The servers are some of a Redis Cluster's (redis://host:port): the cluster says which of its servers has what.");
  at.path("password_file", redis.password_file, "File whose first line is their password; empty: none.");
  at.milliseconds("expire_after_ms", redis.expire_after, {1000, 2'592'000'000}, "Codes are forgotten after so long.");
  at.milliseconds("timeout_ms", redis.timeout, {1, 60000},
                  "A request waits so long for stored codes, then it is computed.");
  at.milliseconds("retry_after_ms", redis.retry_after, {0, 3600000},
                  "A server that failed three times in a row is left alone for so long.");
}

void describe(ConfigVisitor& at, CodeCacheOptions& cache) {
  at.number("memory_mib", cache.memory_mib, {0, 1 << 20},
            "Memory for codes of prompts seen before, MiB; what was used longest ago goes first. 0: keep none.");
  at.number("max_uncached_tail_tokens", cache.max_uncached_tail_tokens, {0, 4096},
            "When no more than this is missing behind stored codes, the consumer computes it instead. How much of a "
            "prompt comes from this model then depends on what is stored; between unlike models an answer may, too. 0: "
            "never.");
  at.section("redis", cache.redis, "Codes that several prefill servers share.");
}

void describe(ConfigVisitor& at, PrefillLimitOptions& limits) {
  at.number("max_requests", limits.max_requests, {1, 65536},
            "Requests waiting, computing and sending; more get RESOURCE_EXHAUSTED.");
  at.number("max_computing", limits.max_computing, {1, 1024},
            "Requests that share the steps of the model; others wait.");
  at.number("batch_tokens", limits.batch_tokens, {16, 65536},
            "Tokens of one step, of one or more prompts; rounded down to whole chunks.");
  at.number("max_unsent_mib", limits.max_unsent_mib, {1, 1 << 20},
            "A request with more codes waiting for its consumer is not computed further, MiB.");
  at.number("max_credit_messages", limits.max_credit_messages, {1, 4096},
            "Unacknowledged messages of one request, however many the consumer allows.");
  at.milliseconds("request_timeout_ms", limits.request_timeout, {1, 86400000},
                  "A request's deadline where the consumer gives none or a later one.");
  at.milliseconds("drain_timeout_ms", limits.drain_timeout, {0, 86400000},
                  "After SIGTERM running requests get so long to finish.");
}

void describe(ConfigVisitor& at, PrefillConfig& config) {
  at.section_of("link", "The link to the decode servers.", [&config](ConfigVisitor& link) {
    link.number(
        "bandwidth_gbps", config.transport.bandwidth_gbps, {0, 10000},
        "Cap on what this side sends, Gbit/s, to emulate or protect a slow link; decode servers choose their codec "
        "by it until they have measured. 0: none.");
  });
  at.section("codec", config.codec, "What is offered to decode servers; they choose codec and ranks.");
  at.section("code_cache", config.code_cache, "Codes kept for prompts that begin alike.");
  at.section("model", config.model, "The producer: the model that reads prompts.");
  describe_device(at, config.device);
  describe_threads(at, config.threads);
  at.section("kv_cache", config.kv_cache, "Memory for keys and values of prompts being computed.");
  at.section("limits", config.limits, "What one server takes on.");
  at.section("grpc", config.grpc, "The control plane.");
  at.section("transport", config.transport, "The data plane.");
  at.section("log", config.log, "Logging.");
  at.section("metrics", config.metrics, "For Prometheus; docs/metrics.md lists them.");
}

void check_config(const PrefillConfig& config) {
  if (config.model.directory.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "model.directory is not set; it must name a Hugging Face checkpoint");
  }
  if (config.codec.chunk_tokens % 16 != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "codec.chunk_tokens is " + std::to_string(config.codec.chunk_tokens) + "; it must be a multiple of 16");
  }
  // Then a send never finds the transport's queue full.
  const int64_t messages = int64_t{config.limits.max_requests} * config.limits.max_credit_messages;
  if (messages > static_cast<int64_t>(config.transport.send_queue)) {
    throw Error(ErrorCode::kInvalidArgument, "limits.max_requests x limits.max_credit_messages is " +
                                                 std::to_string(messages) + " but transport.send_queue only " +
                                                 std::to_string(config.transport.send_queue));
  }
  for (const std::string& server : config.code_cache.redis.servers) {
    const RedisAddress address = parse_redis_address("code_cache.redis.servers", server);
    if (config.code_cache.redis.cluster && (address.host.empty() || address.database != 0)) {
      throw Error(ErrorCode::kInvalidArgument, "code_cache.redis.servers: '" + server +
                                                   "': with code_cache.redis.cluster on it must be redis://host:port");
    }
  }
  check_host_port("grpc.listen", config.grpc.listen);
  check_metrics(config.metrics);
  check_options(config.transport);
}

}  // namespace scd
