#include "decode_server/metrics.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/codec/registry.h"
#include "decode_server/model_registry.h"

namespace scd {
namespace {

constexpr double kRatioBounds[] = {0.1, 0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10};

constexpr std::pair<TransferPart, const char*> kParts[] = {
    {TransferPart::kQueue, "queue"},         {TransferPart::kPrefill, "prefill"}, {TransferPart::kEncode, "encode"},
    {TransferPart::kWire, "wire"},           {TransferPart::kRebuild, "rebuild"}, {TransferPart::kSuffix, "suffix"},
    {TransferPart::kFirstStep, "first_step"}};

// Room for every outcome of as many models as can be served at once, and of no model: a series only gives way, and so
// begins anew, where models that were unloaded have left theirs behind.
constexpr size_t kOutcomes = 18;  // stop, length and the codes of gRPC
constexpr size_t kMostRequestSeries = kOutcomes * (ModelRegistry::kMostModels + 1);

double seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

void read_requests(MetricsRegistry& registry, const DecodeReadings& readings) {
  const auto gauge = [&](const char* name, const char* help, auto field) {
    registry.read(MetricKind::kGauge, {name, help},
                  [counters = readings.counters, field] { return static_cast<double>(counters().*field); });
  };
  gauge("scd_num_requests_running", "Admitted requests.", &ServerCounters::running);
  gauge("scd_num_requests_waiting", "Requests that wait for room.", &ServerCounters::waiting);
  gauge("scd_transfers_running", "Hand-overs under way, or waiting for staging slots.", &ServerCounters::transfers);
  gauge("scd_prefill_streams", "Calls to prefill servers that have not ended.", &ServerCounters::prefill_streams);
  gauge("scd_kv_cache_pages_used", "Pages of 16 tokens in use.", &ServerCounters::pages_in_use);
  gauge("scd_kv_cache_pages_kept", "Pages that no request uses, kept for later prompts.", &ServerCounters::pages_kept);
  gauge("scd_staging_leases", "Requests that may receive codes.", &ServerCounters::live_leases);
  gauge("scd_staging_slots_used", "Staging slots with a message in them.", &ServerCounters::slots_in_use);
}

void read_reuse(MetricsRegistry& registry, const DecodeReadings& readings) {
  const auto counter = [&](const char* name, const char* help, auto field) {
    registry.read(MetricKind::kCounter, {name, help},
                  [counters = readings.counters, field] { return static_cast<double>(counters().*field); });
  };
  counter("scd_prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache.",
          &ServerCounters::prefix_tokens_looked_up);
  counter("scd_prefix_cache_hits_total", "Of them, those found.", &ServerCounters::prefix_tokens_found);
  counter("scd_prefix_cache_evicted_pages_total", "Kept pages that gave way to requests.",
          &ServerCounters::prefix_pages_evicted);
  counter("scd_num_preemptions_total", "Times a request gave its pages up to another.", &ServerCounters::preemptions);
  counter("scd_decode_steps_total", "Steps of a token of each answer under way, without prompts.",
          &ServerCounters::answer_steps);
  counter("scd_decode_steps_ahead_total", "Of them, those a GPU had before the tokens of the step before were known.",
          &ServerCounters::answer_steps_ahead);
}

void read_staging(MetricsRegistry& registry, const std::function<TransportCounters()>& transport) {
  const auto counter = [&](const char* name, const char* help, auto field) {
    registry.read(MetricKind::kCounter, {name, help},
                  [transport, field] { return static_cast<double>(transport().staging.*field); });
  };
  registry.read(MetricKind::kGauge, {"scd_staging_slots", "Staging slots there are."},
                [transport] { return static_cast<double>(transport().staging.slots); });
  counter("scd_received_messages_total", "Messages that landed in a slot.", &StagingCounters::messages_received);
  counter("scd_received_bytes_total", "Their payloads' bytes.", &StagingCounters::payload_bytes_received);
  counter("scd_late_messages_total", "Messages of requests that had ended, dropped.",
          &StagingCounters::late_messages_dropped);
  registry.read(MetricKind::kCounter, {"scd_rejected_messages_total", "Messages that broke a rule, dropped."},
                [transport] {
                  double sum = 0;
                  for (const uint64_t count : transport().staging.rejected) sum += static_cast<double>(count);
                  return sum;
                });
  registry.read(MetricKind::kCounter,
                {"scd_refused_connections_total", "Data connections closed for want of a live token."},
                [transport] { return static_cast<double>(transport().connections_refused); });
}

void read_endpoints(MetricsRegistry& registry, const std::function<std::vector<EndpointFacts>()>& endpoints) {
  registry.read_all(MetricKind::kGauge,
                    {"scd_prefill_endpoint_up",
                     "1 where the prefill server can be asked; lanes: what its data came over last.",
                     {"endpoint", "lanes"}},
                    [endpoints] {
                      std::vector<MetricSample> samples;
                      for (const EndpointFacts& facts : endpoints()) {
                        samples.push_back({{facts.address, facts.lanes}, facts.healthy ? 1.0 : 0.0});
                      }
                      return samples;
                    });
  const auto gauge = [&](const char* name, const char* help, auto field) {
    registry.read_all(MetricKind::kGauge, {name, help, {"endpoint"}}, [endpoints, field] {
      std::vector<MetricSample> samples;
      for (const EndpointFacts& facts : endpoints()) {
        samples.push_back({{facts.address}, static_cast<double>(facts.*field)});
      }
      return samples;
    });
  };
  gauge("scd_prefill_endpoint_ejected", "1 where it is left alone for a while.", &EndpointFacts::ejected);
  gauge("scd_prefill_endpoint_draining", "1 where its name has it no longer.", &EndpointFacts::draining);
  gauge("scd_prefill_endpoint_tokens", "Prompt tokens under way there for this server.", &EndpointFacts::tokens);
}

}  // namespace

DecodeMetrics::DecodeMetrics(MetricsRegistry& registry)
    : requests(registry.counters({"scd_requests_total", "Requests that ended, by how.", {"outcome", "model"}},
                                 kMostRequestSeries)),
      time_to_first_token_seconds(
          registry.histogram({"scd_time_to_first_token_seconds", "From a request's arrival to its first token."})),
      inter_token_latency_seconds(
          registry.histogram({"scd_inter_token_latency_seconds", "Between two tokens of a request."})),
      e2e_request_latency_seconds(
          registry.histogram({"scd_e2e_request_latency_seconds", "From an answered request's arrival to its end."})),
      prompt_tokens(registry.counter({"scd_prompt_tokens_total", "Prompt tokens of answered requests."})),
      generation_tokens(registry.counter({"scd_generation_tokens_total", "Tokens generated."})),
      ttft_part_seconds(registry.histograms(
          {"scd_ttft_part_seconds", "Parts of the time to the first token; together they are all of it.", {"part"}})),
      transfers(registry.counters({"scd_transfers_total",
                                   "Hand-overs of answered requests that carried codes.",
                                   {"endpoint", "codec", "level"}})),
      transfer_bytes(registry.counters(
          {"scd_transfer_bytes_total", "Their bytes, message headers included.", {"endpoint", "codec", "level"}})),
      transfer_wire_seconds(registry.counters({"scd_transfer_wire_seconds_total",
                                               "Time their messages were on the wire.",
                                               {"endpoint", "codec", "level"}})),
      handover_tokens(registry.counter({"scd_handover_tokens_total", "Prompt tokens handed over as codes."})),
      handover_cached_tokens(registry.counter(
          {"scd_handover_cached_tokens_total", "Of them, those whose codes the prefill server had stored."})),
      transfer_predicted_seconds(registry.counters({"scd_transfer_predicted_seconds_total",
                                                    "Encoding, wire and rebuilding of hand-overs, as predicted when "
                                                    "their codec was chosen.",
                                                    {"codec"}})),
      transfer_measured_seconds(registry.counters(
          {"scd_transfer_measured_seconds_total", "The same hand-overs, as they came out.", {"codec"}})),
      transfer_measured_to_predicted_ratio(
          registry.histograms({"scd_transfer_measured_to_predicted_ratio",
                               "Measured over predicted time, each hand-over for itself.",
                               {"codec"}},
                              kRatioBounds)),
      transfer_failures(registry.counters(
          {"scd_transfer_failures_total", "Tries of hand-overs that failed.", {"endpoint", "reason"}})),
      fallbacks(registry.counters(
          {"scd_fallbacks_total", "What was done instead of a hand-over that failed.", {"rung", "reason"}})),
      peer_choices(registry.counters({"scd_prefill_endpoint_choices_total",
                                      "Times a prefill server was chosen, by why.",
                                      {"endpoint", "reason"}})),
      peer_ejections(registry.counters({"scd_prefill_endpoint_ejections_total",
                                        "Times it was left alone for a while, for it had failed requests.",
                                        {"endpoint"}})),
      hedges(registry.counters({"scd_prefill_hedges_total",
                                "Second prefill servers asked beside a slow one, by who sent first.",
                                {"outcome"}})),
      local_prefills_chosen(registry.counter(
          {"scd_local_prefills_chosen_total", "Prompts computed here because that was predicted to be sooner."})),
      first_token_predicted_seconds(registry.counters({"scd_first_token_predicted_seconds_total",
                                                       "From the choice of a way until the first token, as predicted.",
                                                       {"way"}})),
      first_token_measured_seconds(registry.counters(
          {"scd_first_token_measured_seconds_total", "The same requests, as they came out.", {"way"}})),
      first_token_measured_to_predicted_ratio(
          registry.histograms({"scd_first_token_measured_to_predicted_ratio",
                               "Measured over predicted time, each request for itself.",
                               {"way"}},
                              kRatioBounds)) {}

void DecodeMetrics::count_transfer(const TransferAccount& account) {
  for (const auto& [part, name] : kParts) ttft_part_seconds.of({name})->observe(account.times.of(part) / 1e3);
  ttft_part_seconds.of({"orchestration"})->observe(account.times.orchestration_ms / 1e3);
  if (account.forecast) {
    const LabelValues way{account.forecast->local ? "local" : "handover"};
    first_token_predicted_seconds.of(way)->add(account.forecast->seconds());
    first_token_measured_seconds.of(way)->add(account.first_token_seconds);
    first_token_measured_to_predicted_ratio.of(way)->observe(account.first_token_seconds / account.forecast->seconds());
  }
  if (!account.codec || account.wire_bytes == 0) return;
  const std::string codec(to_string(account.codec->id));
  const LabelValues way{account.prefill_endpoint, codec, std::to_string(account.codec->rank.level)};
  transfers.of(way)->add();
  transfer_bytes.of(way)->add(static_cast<double>(account.wire_bytes));
  transfer_wire_seconds.of(way)->add(seconds(busy_time(account.timeline, TransferPart::kWire)));
  const int64_t held = account.prefix_cached_tokens;
  handover_tokens.add(static_cast<double>(account.handover_tokens - held));
  handover_cached_tokens.add(static_cast<double>(std::max<int64_t>(account.cached_tokens - held, 0)));
  if (!account.predicted_seconds) return;
  transfer_predicted_seconds.of({codec})->add(*account.predicted_seconds);
  transfer_measured_seconds.of({codec})->add(account.measured_seconds);
  transfer_measured_to_predicted_ratio.of({codec})->observe(account.measured_seconds / *account.predicted_seconds);
}

void DecodeMetrics::count_fallback(const char* rung, const Failure& failure) {
  fallbacks.of({rung, std::string(to_string(failure.code))})->add();
}

void read_decode_server(MetricsRegistry& registry, const DecodeReadings& readings) {
  read_requests(registry, readings);
  registry.read(MetricKind::kGauge, {"scd_kv_cache_pages", "Pages of 16 tokens there are."},
                [pages = readings.kv_pages] { return static_cast<double>(pages); });
  read_reuse(registry, readings);
  read_staging(registry, readings.transport);
  read_endpoints(registry, readings.endpoints);
  registry.read_all(MetricKind::kGauge,
                    {"scd_decode_server_info", "Always 1.", {"version", "model", "precision", "device"}},
                    [labels = LabelValues{readings.version, readings.model, readings.precision, readings.device}] {
                      return std::vector<MetricSample>{{labels, 1}};
                    });
}

}  // namespace scd
