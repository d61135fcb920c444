#include "prefill_server/server.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/base/send_memory.h"
#include "common/codec/artifact.h"
#include "common/codec/registry.h"
#include "common/device/needing_memory.h"
#include "common/device/open_device.h"
#include "common/device/server_memory.h"
#include "common/log/log.h"
#include "common/log/progress.h"
#include "common/metrics/exposition.h"
#include "common/model/model.h"
#include "common/rpc/server.h"
#include "kernels/device.h"
#include "kernels/linear.h"
#include "prefill_server/metrics.h"
#include "prefill_server/pipeline.h"
#include "prefill_server/producer.h"
#include "prefill_server/request/prefill_service.h"

namespace scd {
namespace {

kernels::DType precision_of(Precision wanted, kernels::Device device) {
  if (wanted == Precision::kAuto) return kernels::native_precision(device);
  return wanted == Precision::kBF16 ? kernels::DType::kBF16 : kernels::DType::kF32;
}

std::optional<std::filesystem::path> adapter_of(const ModelOptions& options) {
  if (options.adapter.empty()) return std::nullopt;
  return options.adapter;
}

std::string name_of(const ModelOptions& options) {
  if (!options.name.empty()) return options.name;
  const auto directory = std::filesystem::weakly_canonical(options.directory);
  return directory.filename().string();
}

Model load_model(const ModelOptions& options, kernels::Device device) {
  Progress progress("loading " + options.directory.string());
  const auto started = std::chrono::steady_clock::now();
  Model model = needing_memory(weights_of(options.directory.string()), [&] {
    return Model::load({.directory = options.directory,
                        .adapter = adapter_of(options),
                        .precision = precision_of(options.precision, device),
                        .device = device,
                        .progress = [&progress](double share) { progress.update(share); }});
  });
  progress.finish();
  log_info("model_loaded",
           {{"directory", options.directory.string()},
            {"family", model.config().family},
            {"layers", model.config().layers},
            {"precision", model.precision() == kernels::DType::kBF16 ? "bf16" : "fp32"},
            {"gemm", kernels::linear_backend(device)},
            {"weight_mib", model.weight_bytes() >> 20},
            {"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count()}});
  return model;
}

void add_encoders(Producer& producer, const ModelConfig& model, const std::filesystem::path& artifact,
                  kernels::Device device) {
  const CodecModel shape{.layers = model.layers,
                         .kv_heads = model.kv_heads,
                         .head_dim = model.head_dim,
                         .hidden = model.hidden,
                         .rope = model.rope};
  for (const CodecId id : all_codecs()) {
    if (!needs_artifact(id)) producer.encoders.emplace_back(id, make_encoder(id, shape, nullptr, device));
  }
  if (artifact.empty()) return;
  const ArtifactEncoder fitted = load_encoder(artifact);
  const auto fits = check_compatible(
      fitted, {producer.fingerprint.weights, producer.fingerprint.tokenizer, producer.fingerprint.rope});
  if (!fits) {
    throw Error(fits.failure().code, "codec.artifact " + artifact.string() + ": " + fits.failure().message);
  }
  if (fitted.calibration.made_up())
    log_warning("artifact_made_up", {{"artifact", artifact.string()}, {"means", "answers mean nothing"}});
  producer.encoders.emplace_back(fitted.codec, make_encoder(fitted.codec, shape, &fitted, device));
}

Producer make_producer(const PrefillConfig& config, const Model& model, const Transport& transport) {
  Producer producer{.name = name_of(config.model),
                    .fingerprint = fingerprint_model(config.model.directory, adapter_of(config.model)),
                    .layers = model.config().layers,
                    .kv_heads = model.config().kv_heads,
                    .head_dim = model.config().head_dim,
                    .hidden = model.config().hidden,
                    .vocabulary = model.config().vocab,
                    .context_tokens = model.config().max_positions,
                    .precision = model.precision() == kernels::DType::kBF16 ? "bf16" : "fp32",
                    .chunk_tokens = config.codec.chunk_tokens,
                    .data_plane = transport.address(),
                    .bandwidth_gbps = config.transport.bandwidth_gbps,
                    .encoders = {}};
  add_encoders(producer, model.config(), config.codec.artifact, model.device());
  return producer;
}

const PrefillConfig& checked(const PrefillConfig& config) {
  check_config(config);
  return config;
}

size_t workspace_of(const PrefillConfig& config, const Model& model) {
  return workspace_bytes(model.config(), model.precision(), workspace_limits(config, model.config()));
}

// held_before: of the GPU, when nothing of this server was on it.
int32_t pages_of(const PrefillConfig& config, const Model& model, size_t held_before) {
  const GpuShare share{.memory_fraction = config.kv_cache.gpu_memory_fraction,
                       .held_bytes = std::max(kernels::gpu_held_bytes(), held_before) - held_before,
                       .workspace_bytes = workspace_of(config, model),
                       .step_key = "limits.batch_tokens"};
  return cache_pages(model.config().kv_shape(model.precision()), model.device(), config.kv_cache.pages, share);
}

// A code may take more than the BF16 numbers it stands for, but not twice as much.
size_t most_chunk_bytes(const Producer& producer) {
  constexpr size_t kHeads = size_t{1} << 20;
  const auto numbers = static_cast<size_t>(producer.layers) *
                       std::max(2 * static_cast<size_t>(producer.kv_heads) * static_cast<size_t>(producer.head_dim),
                                static_cast<size_t>(producer.hidden));
  return 2 * 2 * numbers * static_cast<size_t>(producer.chunk_tokens) + kHeads;
}

std::unique_ptr<CodeStore> make_store(RedisOptions options, const Producer& producer) {
  if (options.servers.empty()) return nullptr;
  options.most_chunk_bytes = most_chunk_bytes(producer);
  return std::make_unique<RedisStore>(options);
}

std::unique_ptr<Transport> transport_of(const PrefillConfig& config) {
  const size_t mib = send_memory_mib(config);
  if (!SendMemory::of_process().reserve(mib << 20)) {
    log_warning("send_memory_not_reserved",
                {{"mib", mib}, {"next", "lower limits.max_unsent_mib, limits.max_computing or code_cache.memory_mib"}});
  }
  return make_transport(config.transport);
}

}  // namespace

WorkspaceLimits workspace_limits(const PrefillConfig& config, const ModelConfig& model) {
  const int64_t all_prompts = int64_t{model.max_positions} * config.limits.max_computing;
  const int64_t step_tokens =
      std::min<int64_t>(std::max(config.limits.batch_tokens, config.codec.chunk_tokens), all_prompts);
  const bool calibrated = !config.codec.artifact.empty();
  return {.step_tokens = step_tokens,
          .sequences = config.limits.max_computing,
          .coded_tokens = step_tokens,
          .unit_layers = calibrated ? kUnitLayers : 1,
          .anchored = calibrated};
}

size_t send_memory_mib(const PrefillConfig& config) {
  constexpr int64_t kMostMib = 2048;
  const int64_t unsent = int64_t{config.limits.max_unsent_mib} * config.limits.max_computing;
  return static_cast<size_t>(std::min(unsent + config.code_cache.memory_mib, kMostMib));
}

// In the order they are built; taken down in ~PrefillServer().
struct PrefillServer::Parts {
  Parts(const PrefillConfig& settings, std::unique_ptr<Transport> given)
      : config(checked(settings)),
        held_before(kernels::gpu_held_bytes()),
        model(load_model(config.model, open_device(config.device))),
        metrics(registry),
        transport(given != nullptr ? std::move(given) : transport_of(config)),
        producer(make_producer(config, model, *transport)),
        kv_cache(model.config().kv_shape(model.precision()), pages_of(config, model, held_before), model.device(),
                 pages_key(model.device(), config.kv_cache.gpu_memory_fraction)),
        held_before_warmth(kernels::gpu_held_bytes()),
        workspace(set_aside(model.device(), {.bytes = workspace_of(config, model),
                                             .memory_fraction = config.kv_cache.gpu_memory_fraction,
                                             .advice = "lower limits.batch_tokens"})),
        code_store(make_store(config.code_cache.redis, producer)),
        pipeline({config, producer, model, kv_cache, *transport, metrics, code_store.get()}),
        service({producer, pipeline, config.limits.request_timeout}),
        rpc(config.grpc, {{v1::PrefillService::service_full_name(), &service}}) {
    read_prefill_server(registry, readings());
    metrics_endpoint = std::make_unique<MetricsEndpoint>(config.metrics, registry);
  }
  PrefillCounters counters() const;
  PrefillReadings readings() const;

  const PrefillConfig config;
  const size_t held_before;  // of a GPU: nothing of this server's
  const Model model;
  MetricsRegistry registry;
  PrefillMetrics metrics;
  std::unique_ptr<Transport> transport;
  const Producer producer;
  KvCache kv_cache;                 // after what else lies on a GPU: weights, and the encoders' maps
  const size_t held_before_warmth;  // of a GPU: all of these
  const kernels::GpuWorkspace workspace;
  const std::unique_ptr<CodeStore> code_store;  // null: none
  Pipeline pipeline;
  PrefillService service;
  RpcServer rpc;
  std::unique_ptr<MetricsEndpoint> metrics_endpoint;  // what it reads lives longer
};

PrefillCounters PrefillServer::Parts::counters() const {
  return {.requests = pipeline.outcomes(),
          .live_requests = pipeline.load().live_requests,
          .computing = pipeline.computing(),
          .steps = pipeline.steps(),
          .pages_in_use = kv_cache.pool().pages_in_use(),
          .code_cache = pipeline.code_cache(),
          .code_store = code_store != nullptr ? code_store->counters() : CodeStoreCounters{},
          .transport = transport->counters()};
}

PrefillReadings PrefillServer::Parts::readings() const {
  return {.version = SCD_VERSION,
          .model = producer.name,
          .precision = producer.precision,
          .device = config.device,
          .kv_pages = kv_cache.pool().pages(),
          .code_cache_bytes = static_cast<uint64_t>(config.code_cache.memory_mib) << 20,
          .counters = [this] { return counters(); },
          .peers = [this] { return transport->peers(); }};
}

PrefillServer::PrefillServer(const PrefillConfig& config, std::unique_ptr<Transport> transport)
    : parts_(std::make_unique<Parts>(config, std::move(transport))) {
  log_info("data_plane", {{"address", parts_->producer.data_plane}, {"uses", parts_->transport->description()}});
  needing_memory({"workspaces of a step of " + std::to_string(config.limits.batch_tokens) + " tokens",
                  "lower limits.batch_tokens or " + parts_->kv_cache.sized_by()},
                 [this] { parts_->pipeline.warm(); });
  log_memory({.device = config.device,
              .weight_bytes = parts_->model.weight_bytes(),
              .pages = parts_->kv_cache.pool().pages(),
              .page_bytes = parts_->kv_cache.bytes(),
              .held_before = parts_->held_before,
              .held_before_warmth = parts_->held_before_warmth,
              .workspace = parts_->workspace});
  parts_->rpc.set_serving(true);
  log_info("listening", {{"address", parts_->rpc.address()}, {"model", parts_->producer.name}});
  if (!metrics_address().empty()) log_info("metrics", {{"address", metrics_address()}});
}

PrefillServer::~PrefillServer() {
  parts_->metrics_endpoint.reset();
  parts_->pipeline.end_all({ErrorCode::kUnavailable, "the prefill server is shutting down"});
  parts_->rpc.shutdown(std::chrono::steady_clock::now());
  // The compute thread may be about to send: it ends before the transport does. Sends that are still under way tell the
  // pipeline how they ended, so it outlives them.
  parts_->pipeline.stop_computing();
  parts_->transport.reset();
}

const std::string& PrefillServer::address() const { return parts_->rpc.address(); }

const std::string& PrefillServer::metrics_address() const { return parts_->metrics_endpoint->address(); }

int PrefillServer::port() const { return parts_->rpc.port(); }

std::string PrefillServer::data_plane_address() const { return parts_->producer.data_plane; }

size_t PrefillServer::drain(std::chrono::milliseconds timeout) {
  constexpr std::chrono::seconds kLastWords{2};  // for the status of calls that are done
  parts_->rpc.set_serving(false);
  const size_t ended = parts_->pipeline.drain(std::chrono::steady_clock::now() + timeout);
  parts_->rpc.linger();
  parts_->rpc.shutdown(std::chrono::steady_clock::now() + kLastWords);
  return ended;
}

void PrefillServer::hurry() {
  parts_->pipeline.end_all({ErrorCode::kUnavailable, "the prefill server is shutting down"});
}

PrefillCounters PrefillServer::counters() const { return parts_->counters(); }

const MetricsRegistry& PrefillServer::metrics() const { return parts_->registry; }

}  // namespace scd
