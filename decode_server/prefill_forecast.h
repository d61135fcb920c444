// Whether a prompt's first token comes sooner from a hand-over or from computing the prompt here, by what has been
// measured (conditional disaggregation, as in NVIDIA Dynamo):
//
//   here      = (tokens of prompts that wait + of this one) / rate of prefill here
//   hand-over = (tokens the prefill server has to compute before + of this one without codes) / its rate of prefill
//               + tokens handed over * seconds a token of encoding, wire and rebuilding + suffix / rate of prefill here
//
// Work overlaps, and attention makes long prompts dearer than short ones: each sum is scaled by what earlier sums of
// its kind came to. A measurement is good for a minute; then a hand-over shows anew what hand-overs take.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "decode_server/measured_rate.h"
#include "decode_server/transfer_account.h"

namespace scd {

struct ForecastQuestion {
  std::string endpoint;
  int64_t queued_tokens = 0;    // that the prefill server has to compute before
  int64_t fresh_tokens = 0;     // of those handed over, without codes there
  int64_t handover_tokens = 0;  // to be sent
  int64_t local_tokens = 0;     // of the prompt that are not here
  std::optional<double> transfer_seconds_per_token{};
};

// What was predicted when one of the two ways was taken.
struct FirstTokenForecast {
  bool local = false;  // the way that is sooner by the margin
  double handover_seconds = 0;
  double local_seconds = 0;
  double unscaled_seconds = 0;  // of the way taken
  ServingClock::time_point made_at{};

  double seconds() const { return local ? local_seconds : handover_seconds; }
  double other_seconds() const { return local ? handover_seconds : local_seconds; }
};

// Thread-safe.
class PrefillForecast {
 public:
  // Prompts' tokens that were computed here in one step; few of them say little.
  void computed_here(int64_t tokens, std::chrono::nanoseconds time);
  // Prompts' tokens that wait to be computed here.
  void set_backlog(int64_t tokens) { backlog_.store(tokens, std::memory_order_relaxed); }
  // A prompt stays here: it waits from now on, though whoever sets the backlog has not seen it yet.
  void add_backlog(int64_t tokens) { backlog_.fetch_add(tokens, std::memory_order_relaxed); }
  // What the prefill server said it took.
  void computed_there(const std::string& endpoint, int64_t tokens, std::chrono::nanoseconds time);
  // How a prediction came out.
  void observe(const FirstTokenForecast& forecast, double seconds, ServingClock::time_point now);

  // Nothing while too little was measured, or too long ago. `local` then is false where both were as fast.
  std::optional<FirstTokenForecast> predict(const ForecastQuestion& question, ServingClock::time_point now) const;

 private:
  double prefill_seconds_there(const ForecastQuestion& question) const;

  std::atomic<int64_t> backlog_{0};  // relaxed: a number
  mutable std::mutex mutex_;         // guards all below
  MeasuredRate here_;                // tokens
  MeasuredRate there_;               // of all prefill servers
  std::map<std::string, MeasuredRate> by_endpoint_;
  MeasuredRate local_scale_;  // seconds that came out over seconds that the sum said
  MeasuredRate handover_scale_;
  std::optional<ServingClock::time_point> measured_at_;  // a hand-over, last
};

}  // namespace scd
