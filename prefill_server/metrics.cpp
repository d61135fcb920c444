#include "prefill_server/metrics.h"

#include <string>
#include <utility>

#include "common/codec/registry.h"
#include "prefill_server/counters.h"

namespace scd {
namespace {

constexpr double kBytesOfGigabit = 1e9 / 8;

constexpr std::pair<PrefillPart, const char*> kParts[] = {{PrefillPart::kQueue, "queue"},
                                                          {PrefillPart::kPrefill, "prefill"},
                                                          {PrefillPart::kEncode, "encode"},
                                                          {PrefillPart::kWire, "wire"}};

double seconds(PrefillClock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::vector<MetricSample> outcomes(const OutcomeCounts& counts) {
  std::vector<MetricSample> samples;
  for (size_t code = 0; code < counts.size(); ++code) {
    if (counts[code] == 0) continue;
    const std::string name = code == 0 ? "ok" : std::string(to_string(static_cast<ErrorCode>(code)));
    samples.push_back({{name}, static_cast<double>(counts[code])});
  }
  return samples;
}

void read_present(MetricsRegistry& registry, const std::function<PrefillCounters()>& counters) {
  const auto gauge = [&](const char* name, const char* help, auto field) {
    registry.read(MetricKind::kGauge, {name, help},
                  [counters, field] { return static_cast<double>(counters().*field); });
  };
  gauge("scd_prefill_num_requests_running", "Requests that wait, are computed or sent.",
        &PrefillCounters::live_requests);
  gauge("scd_prefill_num_requests_computing", "Of them, those in the model or waiting for it.",
        &PrefillCounters::computing);
  gauge("scd_prefill_kv_cache_pages_used", "Pages of 16 tokens in use.", &PrefillCounters::pages_in_use);
}

void read_steps(MetricsRegistry& registry, const std::function<PrefillCounters()>& counters) {
  const auto read = [&](const char* name, const char* help, auto field) {
    registry.read(MetricKind::kCounter, {name, help},
                  [counters, field] { return static_cast<double>(counters().steps.*field); });
  };
  read("scd_prefill_steps_total", "Passes through the model.", &StepCounters::steps);
  read("scd_prefill_step_prompts_total", "Prompts in them: over the steps, how many were computed together.",
       &StepCounters::prompts);
  read("scd_prefill_step_tokens_total", "Tokens in them.", &StepCounters::tokens);
}

void read_code_cache(MetricsRegistry& registry, const std::function<PrefillCounters()>& counters) {
  const auto read = [&](MetricKind kind, const char* name, const char* help, auto field) {
    registry.read(kind, {name, help}, [counters, field] { return static_cast<double>(counters().code_cache.*field); });
  };
  read(MetricKind::kGauge, "scd_prefill_code_cache_bytes", "Stored codes.", &CodeCacheCounters::bytes);
  read(MetricKind::kGauge, "scd_prefill_code_cache_chunks", "Stored chunks.", &CodeCacheCounters::chunks);
  read(MetricKind::kCounter, "scd_prefill_code_cache_hits_total", "Chunks looked for and found.",
       &CodeCacheCounters::hits);
  read(MetricKind::kCounter, "scd_prefill_code_cache_misses_total", "Look-ups that found less than was wanted.",
       &CodeCacheCounters::misses);
  read(MetricKind::kCounter, "scd_prefill_code_cache_evictions_total", "Chunks that gave way to newer ones.",
       &CodeCacheCounters::evictions);
}

void read_code_store(MetricsRegistry& registry, const std::function<PrefillCounters()>& counters) {
  const auto read = [&](const char* name, const char* help, auto field) {
    registry.read(MetricKind::kCounter, {name, help},
                  [counters, field] { return static_cast<double>(counters().code_store.*field); });
  };
  read("scd_prefill_code_store_hits_total", "Chunks found in the shared store.", &CodeStoreCounters::hits);
  read("scd_prefill_code_store_misses_total", "Chunks looked for there in vain.", &CodeStoreCounters::misses);
  read("scd_prefill_code_store_written_total", "Chunks written to it.", &CodeStoreCounters::written);
  read("scd_prefill_code_store_dropped_total", "Chunks not written: too many waited, or it failed.",
       &CodeStoreCounters::dropped);
  read("scd_prefill_code_store_failures_total", "Times one of its servers could not be reached, broke off or was late.",
       &CodeStoreCounters::failures);
  read("scd_prefill_code_store_unsound_total", "Values that were not what was asked for.", &CodeStoreCounters::unsound);
}

void read_transport(MetricsRegistry& registry, const PrefillReadings& readings) {
  registry.read(MetricKind::kGauge, {"scd_prefill_sends_pending", "Messages queued or on the wire."},
                [counters = readings.counters] { return static_cast<double>(counters().transport.sends_pending); });
  registry.read(MetricKind::kCounter, {"scd_prefill_peer_failures_total", "Times a decode server was lost."},
                [counters = readings.counters] { return static_cast<double>(counters().transport.peer_failures); });
  registry.read_all(MetricKind::kGauge,
                    {"scd_prefill_peer_bandwidth_bytes_per_second",
                     "What sends to a decode server reach, moving average; 0 until measured.",
                     {"peer"}},
                    [peers = readings.peers] {
                      std::vector<MetricSample> samples;
                      for (const PeerReport& peer : peers()) {
                        samples.push_back({{peer.address}, peer.bandwidth_gbps * kBytesOfGigabit});
                      }
                      return samples;
                    });
  registry.read_all(MetricKind::kGauge,
                    {"scd_prefill_peer_info", "Always 1; lanes: what the data plane uses.", {"peer", "lanes", "rdma"}},
                    [peers = readings.peers] {
                      std::vector<MetricSample> samples;
                      for (const PeerReport& peer : peers()) {
                        samples.push_back({{peer.address, peer.lanes, peer.rdma ? "true" : "false"}, 1});
                      }
                      return samples;
                    });
}

}  // namespace

PrefillMetrics::PrefillMetrics(MetricsRegistry& registry)
    : request_seconds(registry.histogram(
          {"scd_prefill_request_seconds", "From a request's arrival until all of its codes have left."})),
      part_seconds(registry.histograms(
          {"scd_prefill_part_seconds", "Work for one such request, overlaps counted in each part.", {"part"}})),
      handover_tokens(registry.counter({"scd_prefill_handover_tokens_total", "Prompt tokens handed over as codes."})),
      cached_tokens(registry.counter(
          {"scd_prefill_cached_tokens_total", "Of them, those whose codes were stored when the request came."})),
      sent_messages(registry.counters(
          {"scd_prefill_sent_messages_total", "Messages whose bytes have left.", {"peer", "codec", "level"}})),
      sent_bytes(
          registry.counters({"scd_prefill_sent_bytes_total", "Their payloads' bytes.", {"peer", "codec", "level"}})),
      sent_seconds(registry.counters({"scd_prefill_sent_seconds_total",
                                      "Time each had the wire or an emulated link, summed.",
                                      {"peer", "codec", "level"}})),
      send_failures(registry.counters({"scd_prefill_send_failures_total",
                                       "Messages that could not be sent, or no longer had to be (CANCELLED).",
                                       {"peer", "reason"}})) {}

void PrefillMetrics::count_finished(const PrefillJob& job) {
  request_seconds.observe(seconds(PrefillClock::now() - job.request.received_at));
  for (const auto& [part, name] : kParts) part_seconds.of({name})->observe(seconds(job.spans.total(part)));
  handover_tokens.add(static_cast<double>(job.plan.handover_tokens));
  cached_tokens.add(static_cast<double>(job.plan.cached_tokens));
}

void PrefillMetrics::count_sent(const PrefillRequest& request, const CodeUnit& unit, const Result<SendReport>& result) {
  if (!result) {
    send_failures.of({request.peer, std::string(to_string(result.failure().code))})->add();
    return;
  }
  const LabelValues way{request.peer, std::string(to_string(request.codec.id)), std::to_string(unit.level)};
  sent_messages.of(way)->add();
  sent_bytes.of(way)->add(static_cast<double>(unit.payload.bytes.size()));
  sent_seconds.of(way)->add(seconds(result.value().finished_at - result.value().started_at));
}

void read_prefill_server(MetricsRegistry& registry, const PrefillReadings& readings) {
  registry.read_all(MetricKind::kCounter,
                    {"scd_prefill_requests_total", "Requests for codes that ended, by how.", {"outcome"}},
                    [counters = readings.counters] { return outcomes(counters().requests); });
  read_present(registry, readings.counters);
  registry.read(MetricKind::kGauge, {"scd_prefill_kv_cache_pages", "Pages of 16 tokens there are."},
                [pages = readings.kv_pages] { return static_cast<double>(pages); });
  read_steps(registry, readings.counters);
  read_code_cache(registry, readings.counters);
  read_code_store(registry, readings.counters);
  registry.read(MetricKind::kGauge, {"scd_prefill_code_cache_capacity_bytes", "Codes that may be stored."},
                [bytes = readings.code_cache_bytes] { return static_cast<double>(bytes); });
  read_transport(registry, readings);
  registry.read_all(MetricKind::kGauge,
                    {"scd_prefill_server_info", "Always 1.", {"version", "model", "precision", "device"}},
                    [labels = LabelValues{readings.version, readings.model, readings.precision, readings.device}] {
                      return std::vector<MetricSample>{{labels, 1}};
                    });
}

}  // namespace scd
