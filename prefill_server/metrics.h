// What a prefill server counts for Prometheus; docs/metrics.md says what each name means. Stages count events here;
// what is held at present is read from PrefillCounters.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "common/metrics/registry.h"
#include "common/transport/transport.h"
#include "prefill_server/job.h"

namespace scd {

struct PrefillCounters;

struct PrefillMetrics {
  explicit PrefillMetrics(MetricsRegistry& registry);

  // Of requests whose codes have all left.
  Histogram& request_seconds;
  HistogramFamily& part_seconds;  // by part
  Counter& handover_tokens;
  Counter& cached_tokens;

  // Messages; by peer, codec and level.
  CounterFamily& sent_messages;
  CounterFamily& sent_bytes;
  CounterFamily& sent_seconds;
  CounterFamily& send_failures;  // by peer and reason

  void count_finished(const PrefillJob& job);
  void count_sent(const PrefillRequest& request, const CodeUnit& unit, const Result<SendReport>& result);
};

// What a scrape reads from the server; from any thread.
struct PrefillReadings {
  std::string version, model, precision, device;
  int32_t kv_pages = 0;
  uint64_t code_cache_bytes = 0;  // that may be held
  std::function<PrefillCounters()> counters;
  std::function<std::vector<PeerReport>()> peers;
};
void read_prefill_server(MetricsRegistry& registry, const PrefillReadings& readings);

}  // namespace scd
