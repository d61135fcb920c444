#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/require.h"
#include "kernels/sampled_rows.h"

namespace scd::kernels {
namespace {

void check_options(const SamplingOptions& options, double uniform) {
  require(options.temperature >= 0.0f && std::isfinite(options.temperature),
          "sample: the temperature must be zero or a positive number");
  require(options.top_k >= 0, "sample: top_k ", static_cast<int64_t>(options.top_k), " is negative");
  require(options.top_p > 0.0f && options.top_p <= 1.0f, "sample: top_p must lie in (0, 1]");
  require(options.min_p >= 0.0f && options.min_p <= 1.0f, "sample: min_p must lie in [0, 1]");
  require(uniform >= 0.0 && uniform < 1.0, "sample: the random number must lie in [0, 1)");
}

void check_logits(const ConstMatrix& logits, const char* op) {
  require_matrix(logits, "the logits");
  require(logits.dtype == DType::kF32 && logits.columns > 0, op, ": the logits ", logits, " must be F32, not empty");
}

}  // namespace

int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform) {
  require(!logits.empty(), "sample: no logits");
  check_options(options, uniform);
  return cpu::sample(logits, options, uniform);
}

void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 std::span<int32_t> ids) {
  require(static_cast<int64_t>(ids.size()) == logits.rows, "sample_rows: ", static_cast<int64_t>(ids.size()),
          " ids for the logits ", logits);
  thread_local SampledRows sampled;
  sampled.queue(logits, options, uniforms);
  std::ranges::copy(sampled.ids(), ids.begin());
}

void SampledRows::queue(ConstMatrix logits, std::span<const SamplingOptions> options,
                        std::span<const double> uniforms) {
  check_logits(logits, "sample_rows");
  require(logits.columns <= kMostSampled, "sample_rows: the logits ", logits, " must be of at most ", kMostSampled,
          " tokens");
  const auto rows = static_cast<size_t>(logits.rows);
  require(options.size() == rows && uniforms.size() == rows, "sample_rows: options and random numbers for the logits ",
          logits);
  for (size_t r = 0; r < rows; ++r) check_options(options[r], uniforms[r]);
  sampled_.wait();
  rows_ = logits.rows;
  if (rows == 0) return;
  if (logits.device == Device::kCpu) {
    ids_of_cpu_.resize(rows);
    ids_ = ids_of_cpu_.data();
  } else {
    ids_ = static_cast<int32_t*>(ids_memory_.matrix(1, rows_).data);
  }
  SCD_ON(logits.device, cuda::sample_rows(logits, options, uniforms, options_memory_, ids_),
         cpu::sample_rows(logits, options, uniforms, ids_of_cpu_));
  sampled_.mark(logits.device);
}

std::span<const int32_t> SampledRows::ids() const {
  sampled_.wait();
  return {ids_, static_cast<size_t>(rows_)};
}

void change_logits(Matrix logits, std::span<const LogitChange> changes) {
  check_logits(logits, "change_logits");
  for (const LogitChange& change : changes) {
    require(change.row >= 0 && change.row < logits.rows && change.id >= 0 && change.id < logits.columns,
            "change_logits: row ", static_cast<int64_t>(change.row), ", id ", static_cast<int64_t>(change.id),
            " is outside the logits ", logits);
  }
  if (!changes.empty()) SCD_DISPATCH(logits.device, change_logits(logits, changes));
}

float log_probability(std::span<const float> logits, int32_t id) {
  require(id >= 0 && static_cast<size_t>(id) < logits.size(), "log_probability: id ", static_cast<int64_t>(id),
          " is outside ", static_cast<int64_t>(logits.size()), " logits");
  return cpu::log_probability(logits, id);
}

std::vector<TokenProbability> top_log_probabilities(std::span<const float> logits, int32_t n) {
  require(n >= 0, "top_log_probabilities: ", static_cast<int64_t>(n), " tokens asked for");
  if (logits.empty() || n == 0) return {};
  return cpu::top_log_probabilities(logits, n);
}

}  // namespace scd::kernels
