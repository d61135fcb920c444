#include "tools/scd/load_statistics.h"

#include <cmath>
#include <numeric>

#include "tools/scd/answer_score.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

Percentiles percentiles_of(const std::vector<double>& values) {
  return {percentile(values, 0.5), percentile(values, 0.9), percentile(values, 0.99)};
}

void add(Json& row, const std::string& name, const Percentiles& values) {
  row[name + "_p50_ms"] = values.p50;
  row[name + "_p90_ms"] = values.p90;
  row[name + "_p99_ms"] = values.p99;
}

Json or_null(double value) { return value > 0 ? Json(value) : Json(); }

}  // namespace

double LoadRecord::mean_itl_ms() const {
  if (itl_ms.empty()) return 0;
  return std::accumulate(itl_ms.begin(), itl_ms.end(), 0.0) / static_cast<double>(itl_ms.size());
}

bool ServiceLevel::met_by(const LoadRecord& record) const {
  const auto within = [](double value, double limit) { return limit == 0 || value <= limit; };
  return record.answered() && within(record.ttft_ms, ttft_ms) && within(record.mean_itl_ms(), itl_ms) &&
         within(record.e2e_ms, e2e_ms);
}

LoadSummary summarise(std::span<const LoadRecord> records, double seconds, const ServiceLevel& level) {
  LoadSummary summary;
  summary.requests = records.size();
  summary.seconds = seconds;
  std::vector<double> ttft, itl, e2e, orchestration, errors, first_token_errors;
  int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0, prefix_cached_tokens = 0;
  size_t good = 0;
  for (const LoadRecord& record : records) {
    if (!record.answered()) {
      ++summary.failed;
      continue;
    }
    ttft.push_back(record.ttft_ms);
    e2e.push_back(record.e2e_ms);
    orchestration.push_back(record.orchestration_ms);
    itl.insert(itl.end(), record.itl_ms.begin(), record.itl_ms.end());
    prompt_tokens += record.prompt_tokens;
    output_tokens += record.output_tokens;
    prefix_cached_tokens += record.prefix_cached_tokens;
    summary.fell_back += record.fell_back ? 1 : 0;
    good += level.met_by(record) ? 1 : 0;
    summary.computed_there += record.computed_there ? 1 : 0;
    if (record.predicted_first_token_ms) {
      first_token_errors.push_back(std::abs(record.measured_first_token_ms / *record.predicted_first_token_ms - 1));
    }
    if (record.wire_bytes == 0) continue;
    if (record.predicted_transfer_ms) {
      errors.push_back(std::abs(record.measured_transfer_ms / *record.predicted_transfer_ms - 1));
    }
    summary.wire_bytes += record.wire_bytes;
    summary.handover_tokens += record.handover_tokens;
    cached_tokens += record.cached_tokens;
  }
  const auto per_s = [&](auto count) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; };
  summary.requests_per_s = per_s(ttft.size());
  summary.output_tokens_per_s = per_s(output_tokens);
  summary.total_tokens_per_s = per_s(prompt_tokens + output_tokens);
  summary.goodput_per_s = per_s(good);
  summary.goodput_share = records.empty() ? 0 : static_cast<double>(good) / static_cast<double>(records.size());
  summary.ttft_ms = percentiles_of(ttft);
  summary.itl_ms = percentiles_of(itl);
  summary.e2e_ms = percentiles_of(e2e);
  summary.orchestration_ms = percentiles_of(orchestration);
  summary.predicted = errors.size();
  summary.prediction_error = percentiles_of(errors);
  summary.first_token_predicted = first_token_errors.size();
  summary.first_token_prediction_error = percentiles_of(first_token_errors);
  if (prompt_tokens > 0) {
    summary.prefix_cached_share = static_cast<double>(prefix_cached_tokens) / static_cast<double>(prompt_tokens);
  }
  if (summary.handover_tokens > 0) {
    summary.cached_share = static_cast<double>(cached_tokens) / static_cast<double>(summary.handover_tokens);
  }
  return summary;
}

Json to_json(const LoadSummary& summary, const ServiceLevel& level) {
  Json row = {{"requests", summary.requests},
              {"failed", summary.failed},
              {"fell_back", summary.fell_back},
              {"seconds", summary.seconds},
              {"requests_per_s", summary.requests_per_s},
              {"output_tokens_per_s", summary.output_tokens_per_s},
              {"total_tokens_per_s", summary.total_tokens_per_s}};
  add(row, "ttft", summary.ttft_ms);
  add(row, "itl", summary.itl_ms);
  add(row, "e2e", summary.e2e_ms);
  add(row, "orchestration", summary.orchestration_ms);
  row["slo_ttft_ms"] = or_null(level.ttft_ms);
  row["slo_itl_ms"] = or_null(level.itl_ms);
  row["slo_e2e_ms"] = or_null(level.e2e_ms);
  row["goodput_per_s"] = level.asked() ? Json(summary.goodput_per_s) : Json();
  row["goodput_share"] = level.asked() ? Json(summary.goodput_share) : Json();
  row["predicted"] = summary.predicted;
  row["prediction_error_p50_share"] = summary.predicted > 0 ? Json(summary.prediction_error.p50) : Json();
  row["prediction_error_p90_share"] = summary.predicted > 0 ? Json(summary.prediction_error.p90) : Json();
  const bool compared = summary.first_token_predicted > 0;
  row["first_token_predicted"] = summary.first_token_predicted;
  row["first_token_prediction_error_p50_share"] = compared ? Json(summary.first_token_prediction_error.p50) : Json();
  row["first_token_prediction_error_p90_share"] = compared ? Json(summary.first_token_prediction_error.p90) : Json();
  row["computed_there"] = summary.computed_there;
  row["wire_bytes"] = summary.wire_bytes;
  row["prefix_cached_share"] = summary.prefix_cached_share;
  row["cached_share"] = summary.cached_share;
  if (summary.handover_tokens > 0) {
    row["bytes_per_token"] = static_cast<double>(summary.wire_bytes) / static_cast<double>(summary.handover_tokens);
  }
  return row;
}

}  // namespace scd
