#include "decode_server/prefill_forecast.h"

#include <algorithm>

namespace scd {
namespace {

constexpr double kMargin = 0.1;         // by so much computing here has to be sooner
constexpr int64_t kTellingTokens = 64;  // fewer are over too soon to say how fast many would be
constexpr size_t kMostEndpoints = 1024;
constexpr std::chrono::seconds kHolds{60};

double seconds_of(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

// What came of a sum may be so much less or more than it: one that was far off is not worth many that were not.
constexpr double kLeastScale = 0.1, kMostScale = 10;

double scaled(double seconds, const MeasuredRate& scale) {
  return scale.measured() ? seconds * scale.per_second() : seconds;
}

}  // namespace

void PrefillForecast::computed_here(int64_t tokens, std::chrono::nanoseconds time) {
  if (tokens < kTellingTokens) return;
  std::scoped_lock lock(mutex_);
  here_.observe(static_cast<double>(tokens), seconds_of(time));
}

void PrefillForecast::computed_there(const std::string& endpoint, int64_t tokens, std::chrono::nanoseconds time) {
  std::scoped_lock lock(mutex_);
  measured_at_ = ServingClock::now();
  if (tokens < kTellingTokens) return;
  if (by_endpoint_.size() >= kMostEndpoints) by_endpoint_.clear();
  by_endpoint_[endpoint].observe(static_cast<double>(tokens), seconds_of(time));
  there_.observe(static_cast<double>(tokens), seconds_of(time));
}

void PrefillForecast::observe(const FirstTokenForecast& forecast, double seconds, ServingClock::time_point now) {
  std::scoped_lock lock(mutex_);
  if (!forecast.local) measured_at_ = now;
  const double said = forecast.unscaled_seconds;
  (forecast.local ? local_scale_ : handover_scale_)
      .observe(std::clamp(seconds, kLeastScale * said, kMostScale * said), said);
}

double PrefillForecast::prefill_seconds_there(const ForecastQuestion& question) const {
  const auto found = by_endpoint_.find(question.endpoint);
  const MeasuredRate& rate = found == by_endpoint_.end() ? there_ : found->second;
  return static_cast<double>(question.queued_tokens + question.fresh_tokens) * rate.seconds_each();
}

std::optional<FirstTokenForecast> PrefillForecast::predict(const ForecastQuestion& question,
                                                           ServingClock::time_point now) const {
  std::scoped_lock lock(mutex_);
  const bool known = here_.measured() && there_.measured() && question.transfer_seconds_per_token.has_value();
  if (!known || !measured_at_ || now - *measured_at_ > kHolds) return std::nullopt;
  const auto backlog = static_cast<double>(backlog_.load(std::memory_order_relaxed));
  const auto local_tokens = static_cast<double>(question.local_tokens);
  const auto suffix = static_cast<double>(std::max<int64_t>(question.local_tokens - question.handover_tokens, 0));
  const double local = (backlog + local_tokens) * here_.seconds_each();
  const double handover = prefill_seconds_there(question) +
                          static_cast<double>(question.handover_tokens) * *question.transfer_seconds_per_token +
                          suffix * here_.seconds_each();
  FirstTokenForecast forecast{.handover_seconds = scaled(handover, handover_scale_),
                              .local_seconds = scaled(local, local_scale_),
                              .made_at = now};
  forecast.local = forecast.local_seconds < (1 - kMargin) * forecast.handover_seconds;
  forecast.unscaled_seconds = forecast.local ? local : handover;
  return forecast;
}

}  // namespace scd
