// What came of a load: percentiles, throughput and goodput.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace scd {

// One request, as its client saw it. Times count from its arrival, sent or not: a client that lags hides nothing.
struct LoadRecord {
  std::string error{};  // empty: answered
  double ttft_ms = 0;
  double e2e_ms = 0;
  std::vector<double> itl_ms{};  // between two tokens
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  // As the server accounts for it.
  int64_t prefix_cached_tokens = 0;  // the decode server had kept them
  int64_t cached_tokens = 0;         // of those handed over, the prefill server had their codes
  int64_t handover_tokens = 0;
  int64_t wire_bytes = 0;
  double orchestration_ms = 0;
  std::optional<double> predicted_transfer_ms{};
  double measured_transfer_ms = 0;
  std::optional<double> predicted_first_token_ms{};  // where a hand-over and computing there were compared
  double measured_first_token_ms = 0;
  bool computed_there = false;  // for it was predicted to be sooner
  bool fell_back = false;

  bool answered() const { return error.empty(); }
  double mean_itl_ms() const;  // 0 with one token
};

// What a good answer keeps within; 0: any time will do.
struct ServiceLevel {
  double ttft_ms = 0;
  double itl_ms = 0;  // mean of the request
  double e2e_ms = 0;

  bool asked() const { return ttft_ms > 0 || itl_ms > 0 || e2e_ms > 0; }
  bool met_by(const LoadRecord& record) const;
};

struct Percentiles {
  double p50 = 0, p90 = 0, p99 = 0;
};

struct LoadSummary {
  size_t requests = 0;
  size_t failed = 0;
  size_t fell_back = 0;
  double seconds = 0;
  double requests_per_s = 0;  // answered
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;  // of prompts and answers
  double goodput_per_s = 0;       // answers that met the service level
  double goodput_share = 0;       // of all requests
  Percentiles ttft_ms, itl_ms, e2e_ms, orchestration_ms;
  // |measured / predicted - 1| of hand-overs that had a prediction.
  size_t predicted = 0;
  Percentiles prediction_error;
  // The same of the time to the first token from the choice between a hand-over and computing at the decode server.
  size_t first_token_predicted = 0;
  Percentiles first_token_prediction_error;
  size_t computed_there = 0;       // of them
  double prefix_cached_share = 0;  // of the tokens of prompts
  double cached_share = 0;         // of the tokens handed over
  int64_t wire_bytes = 0;
  int64_t handover_tokens = 0;  // of requests with wire bytes
};

// seconds: from the first arrival to the last end; of several runs, summed. Percentiles are of answered requests.
LoadSummary summarise(std::span<const LoadRecord> records, double seconds, const ServiceLevel& level);

// The summary's part of a report's row: ttft_p50_ms, ..., goodput_per_s (null where no level was asked for).
nlohmann::ordered_json to_json(const LoadSummary& summary, const ServiceLevel& level);

}  // namespace scd
