#include "decode_server/server.h"

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>
#include <vector>

#include "common/codec/artifact.h"
#include "common/device/needing_memory.h"
#include "common/device/open_device.h"
#include "common/device/server_memory.h"
#include "common/kv/kv_cache.h"
#include "common/log/log.h"
#include "common/log/progress.h"
#include "common/metrics/exposition.h"
#include "common/model/adapter.h"
#include "common/model/model.h"
#include "common/rpc/server.h"
#include "common/tokenizer/tokenizer.h"
#include "decode_server/compute.h"
#include "decode_server/metrics.h"
#include "decode_server/model_loader.h"
#include "decode_server/model_registry.h"
#include "decode_server/prefix_cache.h"
#include "decode_server/receive/receiver.h"
#include "decode_server/request/admission.h"
#include "decode_server/request/completion_service.h"
#include "decode_server/request/model_admin_service.h"
#include "kernels/device.h"
#include "kernels/linear.h"

namespace scd {
namespace {

constexpr int64_t kCodedTokens = 4096;  // of all prompts under way; what more of them lack ends them alone

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
  return needing_memory(weights_of(options.directory.string()), [&] { return Model::load(load); });
}

// What the configured models put beside the base's weights once they are used, by the sizes of their files: adapters,
// and the maps of one decoder each. Models that are added later, and decoders of further producers, are not counted.
size_t bytes_of_models(const DecodeConfig& config, kernels::DType precision) {
  const auto maps = [&config](const std::filesystem::path& own) {
    const std::filesystem::path& artifact = own.empty() ? config.codec.artifact : own;
    return artifact.empty() ? size_t{0} : largest_decoder_bytes(artifact);
  };
  if (config.models.empty()) return maps({});
  size_t bytes = 0;
  for (const ServedModelOptions& model : config.models) {
    bytes += maps(model.artifact);
    if (!model.adapter.empty()) bytes += Adapter::bytes_by_file(model.adapter, precision);
  }
  return bytes;
}

constexpr std::string_view kStepKeys = "limits.max_batched_tokens, limits.prefill_chunk_tokens or limits.max_running";

size_t workspace_of(const DecodeConfig& config, const Model& model) {
  return workspace_bytes(model.config(), model.precision(), workspace_limits(config, model.config()));
}

// held_before: of the GPU, when nothing of this server was on it.
int32_t pages_of(const DecodeConfig& config, const Model& model, size_t held_before) {
  const GpuShare share{.memory_fraction = config.kv_cache.gpu_memory_fraction,
                       .held_bytes = std::max(kernels::gpu_held_bytes(), held_before) - held_before,
                       .coming_bytes = bytes_of_models(config, model.precision()),
                       .workspace_bytes = workspace_of(config, model),
                       .step_key = kStepKeys};
  return cache_pages(model.config().kv_shape(model.precision()), model.device(), config.kv_cache.pages, share);
}

int32_t kept_pages(const PrefixCacheOptions& options, int32_t pages) {
  return options.enabled ? static_cast<int32_t>(options.max_share * pages) : 0;
}

}  // namespace

// Beside a step: a pass over a prefix, which may be as large where no step is under way when it begins; and smaller
// ones. Each prompt that has slots for its codes may keep one of its last tokens between layers, and a prompt that was
// overtaken one over its prefix. A pass takes memory for up to four times its rows (common/model/forward.cpp), so that
// small steps leave a third of a large one's in all.
WorkspaceLimits workspace_limits(const DecodeConfig& config, const ModelConfig& model) {
  constexpr int64_t kLeftTokens = 16 + 128;  // behind codes: of a block, and what a prefill server leaves by default
  const LimitOptions& limits = config.limits;
  const bool calibrated = !config.codec.artifact.empty() ||
                          std::ranges::any_of(config.models, [](const auto& named) { return !named.artifact.empty(); });
  const int64_t step_tokens = std::max(limits.step_tokens(true), limits.prefill_chunk_tokens);
  const int64_t coded_tokens = std::min(kCodedTokens, int64_t{model.max_positions});
  const int64_t leases = static_cast<int64_t>(config.transport.slots) / config.prefill.fewest_credit_messages();
  const int64_t prompts = config.prefill.endpoints.empty() ? 0 : std::clamp<int64_t>(leases, 1, limits.max_running);
  const int64_t over_prefix = calibrated ? std::max<int64_t>(coded_tokens, limits.prefill_chunk_tokens)
                                         : limits.prefill_chunk_tokens;  // codes of an artifact are joined
  return {.step_tokens = step_tokens,
          .passes = prompts > 0 ? 2 : 1,
          .further_passes = prompts > 0 ? prompts + 1 : 0,
          .further_rows =
              prompts > 0 ? prompts * (config.codec.suffix_tokens + kLeftTokens) + over_prefix + step_tokens / 3 : 0,
          .batch = limits.max_running,
          .sequences = limits.max_running,
          .coded_tokens = coded_tokens,
          .unit_layers = calibrated ? kUnitLayers : 1,
          .adapters = may_have_adapters(config),
          .anchored = calibrated};
}

// Declared in the order requests flow backwards: destruction ends the intake first, and what it hands to last.
struct DecodeServer::Parts {
  Parts(const DecodeConfig& configuration, std::unique_ptr<Transport> given);
  ~Parts();
  void stop();
  std::vector<RpcService> services();
  std::string precision() const { return model.precision() == kernels::DType::kF32 ? "fp32" : "bf16"; }
  ServerFacts facts() const;
  DecodeReadings readings() const;
  ServerCounters counters() const;
  void wait_idle(ServingClock::time_point deadline) const;

  const DecodeConfig config;
  const size_t held_before;  // of a GPU: nothing of this server's
  const Model model;
  const Tokenizer tokenizer;
  PrefillForecast forecast;
  KvCache cache;
  PrefixCache prefixes;
  const ModelLoader loader;
  ModelRegistry models;
  const size_t held_before_warmth;  // of a GPU: weights, pages and adapters
  const kernels::GpuWorkspace workspace;
  MetricsRegistry registry;
  DecodeMetrics metrics;
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
  std::unique_ptr<ModelAdminService> model_admin;  // null where the configuration does not allow it
  RpcServer rpc;
  std::unique_ptr<MetricsEndpoint> metrics_endpoint;  // what it reads lives longer
};

DecodeServer::Parts::Parts(const DecodeConfig& configuration, std::unique_ptr<Transport> given)
    : config(configuration),
      held_before(kernels::gpu_held_bytes()),
      model(load_model(config.model, open_device(config.device))),
      tokenizer(Tokenizer::from_file(config.model.directory / "tokenizer.json")),
      cache(model.config().kv_shape(model.precision()), pages_of(config, model, held_before), model.device(),
            pages_key(model.device(), config.kv_cache.gpu_memory_fraction)),
      prefixes(cache.pool(), kept_pages(config.prefix_cache, cache.pool().pages())),
      loader({config, model, tokenizer, prefixes, cache.pool().pages()}),
      models(loader.load_configured()),
      held_before_warmth(kernels::gpu_held_bytes()),
      workspace(set_aside(model.device(), {.bytes = workspace_of(config, model),
                                           .memory_fraction = config.kv_cache.gpu_memory_fraction,
                                           .advice = "lower " + std::string(kStepKeys) + ","})),
      metrics(registry),
      transport(given != nullptr ? std::move(given) : make_transport(config.transport)),
      compute({config, model, cache, prefixes, tokenizer, release, forecast, metrics}),
      receiver({config, *transport, compute, forecast, metrics}),
      admission({config.limits, cache.pool(), prefixes, compute}),
      service({config, tokenizer, models, admission, compute, metrics, facts()}),
      model_admin(config.model_admin ? std::make_unique<ModelAdminService>(ModelAdminService::Args{loader, models})
                                     : nullptr),
      rpc(config.grpc, services()) {
  release.target = &admission;
  try {
    read_decode_server(registry, readings());
    metrics_endpoint = std::make_unique<MetricsEndpoint>(config.metrics, registry);
    compute.start(receiver);
  } catch (...) {
    stop();  // whoever asked already is answered
    throw;
  }
}

DecodeServer::Parts::~Parts() { stop(); }

// Threads that call other stages end before those stages do.
void DecodeServer::Parts::stop() {
  service.drain();
  if (model_admin != nullptr) model_admin->stop();
  admission.stop();
  compute.stop();
  rpc.shutdown(ServingClock::now());
}

std::vector<RpcService> DecodeServer::Parts::services() {
  std::vector<RpcService> all{{v1::CompletionService::service_full_name(), &service}};
  if (model_admin != nullptr) all.push_back({v1::ModelAdminService::service_full_name(), model_admin.get()});
  return all;
}

ServerFacts DecodeServer::Parts::facts() const {
  return {.device = config.device,
          .precision = precision(),
          .kv_pages = cache.pool().pages(),
          .counters = [this] { return counters(); },
          .endpoints = [this] { return receiver.endpoints(); }};
}

DecodeReadings DecodeServer::Parts::readings() const {
  return {.version = SCD_VERSION,
          .model = models.default_name(),
          .precision = precision(),
          .device = config.device,
          .kv_pages = cache.pool().pages(),
          .counters = [this] { return counters(); },
          .transport = [this] { return transport->counters(); },
          .endpoints = [this] { return receiver.endpoints(); }};
}

void DecodeServer::Parts::wait_idle(ServingClock::time_point deadline) const {
  constexpr std::chrono::milliseconds kLook{10};
  const auto busy = [this] { return admission.waiting() + admission.running() > 0; };
  while (busy() && ServingClock::now() < deadline) std::this_thread::sleep_for(kLook);
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
          .answer_steps = computed.answer_steps,
          .answer_steps_ahead = computed.answer_steps_ahead,
          .prefix_tokens_looked_up = prefix.looked_up,
          .prefix_tokens_found = prefix.found,
          .prefix_pages_evicted = prefix.evicted_pages};
}

DecodeServer::DecodeServer(const DecodeConfig& config, std::unique_ptr<Transport> transport) {
  check_config(config);
  parts_ = std::make_unique<Parts>(config, std::move(transport));
  log_memory({.device = parts_->config.device,
              .weight_bytes = parts_->model.weight_bytes(),
              .pages = parts_->cache.pool().pages(),
              .page_bytes = parts_->cache.bytes(),
              .held_before = parts_->held_before,
              .held_before_warmth = parts_->held_before_warmth,
              .workspace = parts_->workspace});
  parts_->rpc.set_serving(true);
  log_info("decode_server_ready", {{"address", parts_->rpc.address()},
                                   {"model", parts_->models.default_name()},
                                   {"models", static_cast<int64_t>(parts_->models.list().size())},
                                   {"precision", parts_->precision()},
                                   {"gemm", kernels::linear_backend(parts_->model.device())},
                                   {"data_plane", parts_->transport->description()},
                                   {"kv_cache_mib", static_cast<int64_t>(parts_->cache.bytes() >> 20)}});
  if (!metrics_address().empty()) log_info("metrics", {{"address", metrics_address()}});
}

DecodeServer::~DecodeServer() = default;

const std::string& DecodeServer::address() const { return parts_->rpc.address(); }
int DecodeServer::port() const { return parts_->rpc.port(); }

size_t DecodeServer::drain(std::chrono::milliseconds timeout) {
  const uint64_t failed_before = parts_->counters().failed;
  if (parts_->model_admin != nullptr) parts_->model_admin->close();
  parts_->service.drain();
  parts_->rpc.set_serving(false);
  const auto deadline = ServingClock::now() + timeout;
  parts_->wait_idle(deadline);
  parts_->rpc.linger();
  parts_->rpc.shutdown(deadline);
  return parts_->counters().failed - failed_before;
}

void DecodeServer::hurry() {
  if (parts_->model_admin != nullptr) parts_->model_admin->close();
  parts_->service.drain();
  parts_->admission.stop();
  parts_->compute.request_stop();
}

const std::string& DecodeServer::metrics_address() const { return parts_->metrics_endpoint->address(); }

ServerCounters DecodeServer::counters() const { return parts_->counters(); }

const MetricsRegistry& DecodeServer::metrics() const { return parts_->registry; }

}  // namespace scd
