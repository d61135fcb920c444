#include "decode_server/config.h"

#include <algorithm>
#include <set>

#include "common/base/error.h"
#include "common/codec/registry.h"

namespace scd {

DecodeConfig::DecodeConfig() {
  prefill.endpoints = {"127.0.0.1:50052"};
  grpc.listen = "127.0.0.1:50051";
}

void describe(ConfigVisitor& at, OutlierOptions& outlier) {
  at.number(
      "consecutive_failures", outlier.consecutive_failures, {1, 1000},
      "A prefill server that failed so many requests in a row is not asked for a while, unless no other is left.");
  at.milliseconds("ejection_ms", outlier.ejection, {0, 3600000},
                  "For so long; twice, three times, ... as long when it fails soon after.");
  at.milliseconds("max_ejection_ms", outlier.max_ejection, {0, 3600000}, "For no longer than this.");
  at.number("max_ejected_share", outlier.max_ejected_share, {0, 1},
            "Most of the prefill servers that are left alone at once; one never is.");
}

void describe(ConfigVisitor& at, PrefillOptions& prefill) {
  at.texts("endpoints", prefill.endpoints,
           "host:port of each prefill server; a DNS name stands for every address it has (a headless Kubernetes "
           "service: all its pods). None: this server prefills by itself.");
  at.milliseconds("resolve_every_ms", prefill.resolve_every, {100, 3600000},
                  "Names are looked up so often, and when none of the prefill servers answers. Those that are gone get "
                  "no new requests.");
  at.milliseconds("health_every_ms", prefill.health_every, {0, 3600000},
                  "Each prefill server's grpc.health.v1 is asked so often; one that is not serving, or does not answer "
                  "for as long, is avoided. 0: never.");
  at.milliseconds("silence_timeout_ms", prefill.silence_timeout, {10, 3600000},
                  "A prefill server that sends nothing for so long is given up.");
  at.section("outlier", prefill.outlier, "Prefill servers that fail requests.");
  at.number("prefix_margin_tokens", prefill.prefix_margin_tokens, {0, 1 << 30},
            "The prefill server that has codes of the longest beginning of a prompt is asked, unless it has so many "
            "more tokens to compute than the one with the fewest.");
  at.number("remembered_blocks", prefill.remembered_blocks, {0, 1 << 24},
            "Blocks of 64 tokens of which is remembered which prefill servers have their codes.");
  at.milliseconds("hedge_after_ms", prefill.hedge_after, {0, 3600000},
                  "A second prefill server is asked, too, where the first has sent no codes for so long; whichever "
                  "sends first is used. 0: never.");
  at.choice("local", prefill.local, {{"off", LocalPrefill::kOff}, {"auto", LocalPrefill::kAuto}},
            "auto: with codec.mode auto, and for exact requests, a prompt is computed here where that is predicted to "
            "give the first token sooner than a hand-over. off: never while a prefill server can be asked.");
  at.number(
      "credit_messages", prefill.credit_messages, {1, 4096},
      "Messages of one request under way at once, at most: staging slots leased to it. It gets a quarter of those that "
      "are left, but 8 where that is fewer; while so many are not left it waits.");
}

void describe(ConfigVisitor& at, FallbackOptions& fallback) {
  at.flag("other_endpoint", fallback.other_endpoint, "Ask another prefill server when one fails.");
  at.flag("local_prefill", fallback.local_prefill, "Compute the prompt here when no prefill server delivers.");
  at.number("local_prefill_max_tokens", fallback.local_prefill_max_tokens, {0, 1 << 30},
            "Longest prompt computed here as a fallback, tokens.");
}

void describe(ConfigVisitor& at, PrefixCacheOptions& cache) {
  at.flag("enabled", cache.enabled,
          "Keep keys and values of finished requests; requests of one cache_salt share them.");
  at.number("max_share", cache.max_share, {0, 1},
            "Most of the KV cache's pages that are kept; what no request uses gives way to requests at any time.");
  at.number("max_uncached_tail_tokens", cache.max_uncached_tail_tokens, {0, 1 << 20},
            "Where no more than so many tokens of a prompt are missing behind what is kept, they are computed here.");
}

void describe(ConfigVisitor& at, LimitOptions& limits) {
  at.number("max_running", limits.max_running, {1, 65536}, "Requests served at once.");
  at.number("max_waiting", limits.max_waiting, {1, 1 << 20}, "Requests that may wait; more get RESOURCE_EXHAUSTED.");
  at.milliseconds("request_timeout_ms", limits.request_timeout, {1, 86400000},
                  "A request's deadline where the client gives none or a later one.");
  at.milliseconds("drain_timeout_ms", limits.drain_timeout, {0, 86400000},
                  "After SIGTERM running requests get so long to finish.");
  at.number("prefill_chunk_tokens", limits.prefill_chunk_tokens, {16, 65536},
            "Tokens of prompts that are computed together here while no answer is under way, and of a prompt's native "
            "layers.");
  at.number("kept_codes_mib", limits.kept_codes_mib, {0, 1 << 20},
            "Memory for codes of requests under way: one that gave its pages up need not ask for them again. 0: none.");
  at.number(
      "max_batched_tokens", limits.max_batched_tokens, {0, 1 << 20},
      "While there are: tokens of one step, one of each answer and the rest of prompts. Fewer make answers smoother "
      "and first tokens later. 0: 128 on the CPU, 2048 on a GPU.");
  at.number(
      "recorded_batch", limits.recorded_batch, {0, 1024},
      "On a GPU: steps of up to so many answers are recorded when the server starts; those of more are not. A "
      "recorded step costs one launch instead of several for each layer, and some memory of the GPU. Where models "
      "may have adapters, steps with adapters are recorded as well, which takes as long and as much again.");
}

void describe(ConfigVisitor& at, ServedModelOptions& model) {
  at.text("name", model.name, "What clients call it.");
  at.path("directory", model.directory, "Empty: model.directory; else a directory with the same base.");
  at.path("adapter", model.adapter, "PEFT LoRA adapter, applied beside the base's weights; empty: the base itself.");
  at.path("artifact", model.artifact, "Codec artifact; empty: codec.artifact.");
}

void describe(ConfigVisitor& at, DecodeConfig& config) {
  at.section("codec", config.codec, "How the prompt's state crosses the link.");
  at.section("prefill", config.prefill, "The prefill servers.");
  at.section("fallback", config.fallback, "When a prefill server does not deliver.");
  at.section("model", config.model, "The consumer: the model that answers.");
  at.sections("models", config.models,
              "Several models of one base, loaded once, each with an adapter of its own that is not merged. Of each: "
              "name (what clients call it), adapter (PEFT LoRA; none: the base itself), artifact (none: "
              "codec.artifact), directory (none: model.directory; else the same base). The first is what requests get "
              "that name none. Empty: the one model above.");
  at.flag("model_admin", config.model_admin,
          "Let gRPC clients load and unload models at run time (ModelAdminService): they name directories of this "
          "machine.");
  describe_device(at, config.device);
  describe_threads(at, config.threads);
  at.section("kv_cache", config.kv_cache, "Memory for keys and values.");
  at.section("prefix_cache", config.prefix_cache, "Keys and values of prompts seen before.");
  at.section("limits", config.limits, "What one server takes on.");
  at.section("grpc", config.grpc, "The control plane.");
  at.section("transport", config.transport, "The data plane.");
  at.section("log", config.log, "Logging.");
  at.section("metrics", config.metrics, "For Prometheus; docs/metrics.md lists them.");
}

void check_model_name(const std::string& field, const std::string& name) {
  constexpr size_t kLongest = 256;
  if (!name.empty() && name.size() <= kLongest) return;
  throw Error(ErrorCode::kInvalidArgument,
              field + ": " + std::to_string(name.size()) + " bytes; expected a name of 1 to 256 bytes");
}

namespace {

void check_models(const DecodeConfig& config) {
  std::set<std::string> names;
  for (size_t i = 0; i < config.models.size(); ++i) {
    const std::string field = "models[" + std::to_string(i) + "].name";
    check_model_name(field, config.models[i].name);
    if (!names.insert(config.models[i].name).second) {
      throw Error(ErrorCode::kInvalidArgument,
                  field + ": '" + config.models[i].name + "' is another model's name, too");
    }
  }
  if ((!names.empty() || config.model_admin) && !config.model.adapter.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "model.adapter is merged into the base, which `models` and model_admin need as it is; name it as the "
                "adapter of one of the models");
  }
}

bool every_model_has_an_artifact(const DecodeConfig& config) {
  if (!config.codec.artifact.empty()) return true;
  return !config.models.empty() &&
         std::ranges::none_of(config.models, [](const auto& model) { return model.artifact.empty(); });
}

void check_hedging(const DecodeConfig& config) {
  const PrefillOptions& prefill = config.prefill;
  if (prefill.hedge_after.count() == 0) return;
  if (prefill.hedge_after >= prefill.silence_timeout) {
    throw Error(ErrorCode::kInvalidArgument,
                "prefill.hedge_after_ms is " + std::to_string(prefill.hedge_after.count()) +
                    " but prefill.silence_timeout_ms, after which the first one is given up, only " +
                    std::to_string(prefill.silence_timeout.count()));
  }
  if (2 * static_cast<size_t>(prefill.fewest_credit_messages()) > config.transport.slots) {
    throw Error(ErrorCode::kInvalidArgument,
                "transport.slots is " + std::to_string(config.transport.slots) +
                    ", which does not do for two prefill servers at once as prefill.hedge_after_ms asks: at least " +
                    std::to_string(2 * prefill.fewest_credit_messages()));
  }
}

}  // namespace

void check_model_files(const DecodeConfig& config) {
  for (size_t i = 0; i < config.models.size(); ++i) {
    const std::string field = "models[" + std::to_string(i) + "].";
    const ServedModelOptions& model = config.models[i];
    if (!model.directory.empty()) check_exists(field + "directory", model.directory / "config.json");
    if (!model.adapter.empty()) check_exists(field + "adapter", model.adapter / "adapter_config.json");
    check_exists(field + "artifact", model.artifact);
  }
}

bool may_have_adapters(const DecodeConfig& config) {
  return config.model_admin ||
         std::ranges::any_of(config.models, [](const auto& model) { return !model.adapter.empty(); });
}

void check_config(const DecodeConfig& config) {
  if (config.model.directory.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "model.directory is not set; it must name a Hugging Face checkpoint");
  }
  const auto codec = codec_from_number(static_cast<int>(config.codec.mode));
  if (codec && needs_artifact(*codec) && !every_model_has_an_artifact(config)) {
    throw Error(ErrorCode::kInvalidArgument, "codec.mode is " + std::string(to_string(*codec)) +
                                                 " but codec.artifact names no directory made by scd calibrate");
  }
  if (static_cast<size_t>(config.prefill.fewest_credit_messages()) > config.transport.slots) {
    throw Error(ErrorCode::kInvalidArgument, "transport.slots is " + std::to_string(config.transport.slots) +
                                                 ": a request needs " +
                                                 std::to_string(config.prefill.fewest_credit_messages()) + " of them");
  }
  check_hedging(config);
  if (config.prefill.endpoints.empty() && config.codec.mode != CodecMode::kOracle && !config.fallback.local_prefill) {
    throw Error(ErrorCode::kInvalidArgument,
                "prefill.endpoints is empty, codec.mode is not oracle and fallback.local_prefill is off: no prompt "
                "could be served");
  }
  if (config.prefill.outlier.max_ejection < config.prefill.outlier.ejection) {
    throw Error(ErrorCode::kInvalidArgument,
                "prefill.outlier.max_ejection_ms is less than prefill.outlier.ejection_ms");
  }
  check_models(config);
  if (config.codec.sinks % 16 != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "codec.sinks is " + std::to_string(config.codec.sinks) + "; it must be a multiple of 16");
  }
  for (const std::string& endpoint : config.prefill.endpoints) check_host_port("prefill.endpoints", endpoint);
  check_host_port("grpc.listen", config.grpc.listen);
  check_metrics(config.metrics);
  check_options(config.transport);
}

}  // namespace scd
