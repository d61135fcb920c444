#include "decode_server/server.h"

#include <utility>
#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/registry.h"
#include "common/device/open_device.h"
#include "common/kv/kv_cache.h"
#include "common/log/log.h"
#include "common/log/progress.h"
#include "common/metrics/exposition.h"
#include "common/model/fingerprint.h"
#include "common/model/model.h"
#include "common/rebuild/model_shape.h"
#include "common/rpc/server.h"
#include "common/tokenizer/tokenizer.h"
#include "decode_server/codec_policy.h"
#include "decode_server/compute.h"
#include "decode_server/metrics.h"
#include "decode_server/prefix_cache.h"
#include "decode_server/receive/receiver.h"
#include "decode_server/request/admission.h"
#include "decode_server/request/completion_service.h"
#include "kernels/linear.h"

namespace scd {
namespace {

kernels::DType precision_of(Precision wanted, kernels::Device device) {
  if (wanted == Precision::kAuto) return kernels::native_precision(device);
  return wanted == Precision::kBF16 ? kernels::DType::kBF16 : kernels::DType::kF32;
}

Model load_model(const ModelOptions& options, kernels::Device device) {
  LoadOptions load;
  load.directory = options.directory;
  if (!options.adapter.empty()) load.adapter = options.adapter;
  load.precision = precision_of(options.precision, device);
  load.device = device;
  Progress progress("loading " + options.directory.string());
  load.progress = [&progress](double share) { progress.update(share); };
  return Model::load(load);
}

std::string name_of(kernels::DType precision) { return precision == kernels::DType::kF32 ? "fp32" : "bf16"; }

std::string name_of(const ModelOptions& options) {
  if (!options.name.empty()) return options.name;
  const auto directory = options.directory.has_filename() ? options.directory : options.directory.parent_path();
  return directory.filename().string();
}

ConsumerIdentity identify(const DecodeConfig& config, const Model& model) {
  ConsumerIdentity identity;
  identity.fingerprint = fingerprint_model(
      config.model.directory, config.model.adapter.empty() ? std::nullopt : std::optional(config.model.adapter));
  identity.model = codec_model_of(model.config());
  identity.precision = name_of(model.precision());
  identity.device = model.device();
  if (config.codec.artifact.empty()) return identity;
  identity.artifact = load_decoder(config.codec.artifact, identity.fingerprint.weights);
  return identity;
}

const ArtifactDecoder* artifact_of(const ConsumerIdentity& identity) {
  return identity.artifact ? &*identity.artifact : nullptr;
}

CoderCosts coder_costs(const DecodeConfig& config, const ConsumerIdentity& identity) {
  const LayerPlan* plan = identity.artifact ? identity.artifact->calibrated_plan() : nullptr;
  const int32_t computed_here = plan != nullptr ? plan->exact_layers : config.codec.exact_layer0 ? 1 : 0;
  const ArtifactDecoder* artifact = config.device == "cpu" ? artifact_of(identity) : nullptr;
  return measure_coders(identity.model, identity.model.layers - computed_here, artifact);
}

int32_t pages_of(const KvCacheOptions& options, const Model& model) {
  return cache_pages(model.config().kv_shape(model.precision()), model.device(), options.pages,
                     options.gpu_memory_fraction, model.weight_bytes());
}

int32_t kept_pages(const PrefixCacheOptions& options, int32_t pages) {
  return options.enabled ? static_cast<int32_t>(options.max_share * pages) : 0;
}

ValidationContext context_of(const DecodeConfig& config, const Model& model, const Tokenizer& tokenizer,
                             const ConsumerIdentity& identity, const CodecPolicy& codecs, int32_t kv_pages) {
  ValidationContext context{config, model.config(), tokenizer, name_of(config.model), kv_pages};
  if (!identity.artifact) return context;
  const CodecId codec = identity.artifact->codec;
  const auto configured = configured_codec(config.codec);
  if (configured && needs_artifact(*configured) && *configured != codec) {
    throw Error(ErrorCode::kFailedPrecondition, config.codec.artifact.string() + " is an artifact of codec " +
                                                    std::string(to_string(codec)) + ", but codec.mode is " +
                                                    std::string(to_string(*configured)));
  }
  context.artifact_codec = codec;
  context.levels = codecs.levels();
  context.level = codecs.fixed_level();
  if (const LayerPlan* plan = identity.artifact->calibrated_plan()) {
    const double share = plan->native_share(model.config().layers);
    if (share > config.codec.max_native_share) {
      throw Error(ErrorCode::kFailedPrecondition,
                  config.codec.artifact.string() + ": it has this server run " + std::to_string(share) +
                      " of its layers over the prefix, more than codec.max_native_share " +
                      std::to_string(config.codec.max_native_share) + "; calibrate with fewer --native layers");
    }
    context.exact_layers = plan->exact_layers;
    context.predicts = plan->predicted;
  }
  return context;
}

}  // namespace

// Declared in the order requests flow backwards: destruction ends the intake first, and what it hands to last.
struct DecodeServer::Parts {
  Parts(const DecodeConfig& configuration, std::unique_ptr<Transport> given);
  ~Parts();
  ServerFacts facts() const;
  DecodeReadings readings() const;
  ServerCounters counters() const;

  const DecodeConfig config;
  const Model model;
  const Tokenizer tokenizer;
  const ConsumerIdentity identity;
  CodecPolicy codecs;
  PrefillForecast forecast;
  KvCache cache;
  PrefixCache prefixes;
  MetricsRegistry registry;
  DecodeMetrics metrics;
  const ValidationContext validation;
  std::unique_ptr<Transport> transport;

  // The compute thread learns of room it made; admission is built after it.
  struct Release : AdmissionStage {
    Admission* target = nullptr;
    void release() override { target->release(); }
    void hold_back(std::optional<int32_t> priority) override { target->hold_back(priority); }
  } release;
  ComputeThread compute;
  Receiver receiver;
  Admission admission;
  CompletionService service;
  RpcServer rpc;
  std::unique_ptr<MetricsEndpoint> metrics_endpoint;  // what it reads lives longer
};

DecodeServer::Parts::Parts(const DecodeConfig& configuration, std::unique_ptr<Transport> given)
    : config(configuration),
      model(load_model(config.model, open_device(config.device))),
      tokenizer(Tokenizer::from_file(config.model.directory / "tokenizer.json")),
      identity(identify(config, model)),
      codecs(config.codec, artifact_of(identity), coder_costs(config, identity)),
      cache(model.config().kv_shape(model.precision()), pages_of(config.kv_cache, model), model.device()),
      prefixes(cache.pool(), kept_pages(config.prefix_cache, cache.pool().pages())),
      metrics(registry),
      validation(context_of(config, model, tokenizer, identity, codecs, cache.pool().pages())),
      transport(given != nullptr ? std::move(given) : make_transport(config.transport)),
      compute({config, model, cache, prefixes, tokenizer, release, codecs, forecast, metrics}),
      receiver({config, identity, *transport, compute, codecs, forecast, metrics}),
      admission({validation, cache.pool(), prefixes, codecs, compute}),
      service({validation, admission, compute, metrics, facts()}),
      rpc(config.grpc, {{v1::CompletionService::service_full_name(), &service}}) {
  release.target = &admission;
  read_decode_server(registry, readings());
  metrics_endpoint = std::make_unique<MetricsEndpoint>(config.metrics, registry);
  compute.start(receiver);
}

// Threads that call other stages end before those stages do.
DecodeServer::Parts::~Parts() {
  service.drain();
  admission.stop();
  compute.stop();
  rpc.shutdown(ServingClock::now());
}

ServerFacts DecodeServer::Parts::facts() const {
  return {.fingerprint = identity.fingerprint,
          .precision = identity.precision,
          .kv_pages = cache.pool().pages(),
          .counters = [this] { return counters(); },
          .endpoints = [this] { return receiver.endpoints(); },
          .codec = [this] { return codecs.present(); }};
}

DecodeReadings DecodeServer::Parts::readings() const {
  return {.version = SCD_VERSION,
          .model = validation.model_name,
          .precision = identity.precision,
          .device = config.device,
          .kv_pages = cache.pool().pages(),
          .counters = [this] { return counters(); },
          .transport = [this] { return transport->counters(); },
          .endpoints = [this] { return receiver.endpoints(); }};
}

ServerCounters DecodeServer::Parts::counters() const {
  const ComputeCounters computed = compute.counters();
  const ReceiverCounters received = receiver.counters();
  const PrefixCacheCounters prefix = prefixes.counters();
  const StagingCounters staging = transport->counters().staging;
  return {.waiting = admission.waiting(),
          .running = admission.running(),
          .sequences = computed.sequences,
          .transfers = received.transfers,
          .prefill_streams = received.streams,
          .pages_in_use = cache.pool().pages_in_use(),
          .pages_kept = cache.pool().pages_kept(),
          .live_leases = staging.live_leases,
          .slots_in_use = staging.slots_in_use,
          .completed = computed.completed,
          .failed = computed.failed,
          .cancelled = computed.cancelled,
          .refused = admission.refused(),
          .transfers_started = received.started,
          .transfers_failed = received.failed,
          .other_endpoints = received.other_endpoints,
          .hedges = received.hedges,
          .local_fallbacks = computed.local_fallbacks,
          .preemptions = computed.preemptions,
          .prefix_tokens_looked_up = prefix.looked_up,
          .prefix_tokens_found = prefix.found,
          .prefix_pages_evicted = prefix.evicted_pages};
}

DecodeServer::DecodeServer(const DecodeConfig& config, std::unique_ptr<Transport> transport) {
  check_config(config);
  parts_ = std::make_unique<Parts>(config, std::move(transport));
  parts_->rpc.set_serving(true);
  log_info("memory", {{"device", parts_->config.device},
                      {"weight_mib", static_cast<int64_t>(parts_->model.weight_bytes() >> 20)},
                      {"kv_cache_pages", parts_->cache.pool().pages()},
                      {"kv_cache_mib", static_cast<int64_t>(parts_->cache.bytes() >> 20)}});
  log_info("decode_server_ready", {{"address", parts_->rpc.address()},
                                   {"model", parts_->validation.model_name},
                                   {"precision", parts_->identity.precision},
                                   {"gemm", kernels::linear_backend(parts_->model.device())},
                                   {"weights", parts_->identity.fingerprint.weights},
                                   {"data_plane", parts_->transport->description()},
                                   {"kv_cache_mib", static_cast<int64_t>(parts_->cache.bytes() >> 20)}});
  if (!metrics_address().empty()) log_info("metrics", {{"address", metrics_address()}});
}

DecodeServer::~DecodeServer() = default;

const std::string& DecodeServer::address() const { return parts_->rpc.address(); }
int DecodeServer::port() const { return parts_->rpc.port(); }

size_t DecodeServer::drain(std::chrono::milliseconds timeout) {
  const uint64_t failed_before = parts_->counters().failed;
  parts_->service.drain();
  parts_->rpc.set_serving(false);
  parts_->rpc.shutdown(ServingClock::now() + timeout);
  return parts_->counters().failed - failed_before;
}

void DecodeServer::hurry() {
  parts_->service.drain();
  parts_->admission.stop();
  parts_->compute.request_stop();
}

const std::string& DecodeServer::metrics_address() const { return parts_->metrics_endpoint->address(); }

ServerCounters DecodeServer::counters() const { return parts_->counters(); }

const MetricsRegistry& DecodeServer::metrics() const { return parts_->registry; }

}  // namespace scd
