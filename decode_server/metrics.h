// What a decode server counts for Prometheus; docs/metrics.md says what each name means. Stages count events here;
// what is held at present is read from ServerCounters.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/metrics/registry.h"
#include "common/transport/staging.h"
#include "common/transport/transport.h"
#include "decode_server/completion.h"
#include "decode_server/counters.h"

namespace scd {

struct DecodeMetrics {
  explicit DecodeMetrics(MetricsRegistry& registry);

  // A request's way, as its client sees it.
  CounterFamily& requests;  // by outcome
  Histogram& time_to_first_token_seconds;
  Histogram& inter_token_latency_seconds;
  Histogram& e2e_request_latency_seconds;
  Counter& prompt_tokens;
  Counter& generation_tokens;
  HistogramFamily& ttft_part_seconds;  // by part

  // Hand-overs that reached their first token; by endpoint, codec and level.
  CounterFamily& transfers;
  CounterFamily& transfer_bytes;
  CounterFamily& transfer_wire_seconds;
  Counter& handover_tokens;
  Counter& handover_cached_tokens;
  // By codec, where the choice of the codec came with a prediction.
  CounterFamily& transfer_predicted_seconds;
  CounterFamily& transfer_measured_seconds;
  HistogramFamily& transfer_measured_to_predicted_ratio;

  CounterFamily& transfer_failures;  // tries, by endpoint and reason
  CounterFamily& fallbacks;          // by rung and reason

  CounterFamily& peer_choices;    // by endpoint and reason
  CounterFamily& peer_ejections;  // by endpoint
  CounterFamily& hedges;          // by outcome
  // Where computing here was the other choice; of the times, by way: "handover" or "local".
  Counter& local_prefills_chosen;
  CounterFamily& first_token_predicted_seconds;
  CounterFamily& first_token_measured_seconds;
  HistogramFamily& first_token_measured_to_predicted_ratio;

  // The account of an answered request.
  void count_transfer(const TransferAccount& account);
  // A hand-over that failed goes on otherwise.
  void count_fallback(const char* rung, const Failure& failure);
};

// What a scrape reads from the server; from any thread.
struct DecodeReadings {
  std::string version, model, precision, device;
  int32_t kv_pages = 0;
  std::function<ServerCounters()> counters;
  std::function<TransportCounters()> transport;
  std::function<std::vector<EndpointFacts>()> endpoints;
};
void read_decode_server(MetricsRegistry& registry, const DecodeReadings& readings);

}  // namespace scd
