#include "decode_server/request/measured_sink.h"

#include <string>
#include <utility>

namespace scd {
namespace {

double seconds(ServingClock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

void MeasuredSink::on_delta(CompletionDelta delta) {
  const auto now = ServingClock::now();
  if (last_token_at_) {
    metrics_.inter_token_latency_seconds.observe(seconds(now - *last_token_at_));
  } else {
    metrics_.time_to_first_token_seconds.observe(seconds(now - received_at_));
  }
  last_token_at_ = now;
  metrics_.generation_tokens.add(static_cast<double>(delta.ids.size()));
  inner_->on_delta(std::move(delta));
}

// Counted before the client hears of it, so that who has an answer finds it counted.
void MeasuredSink::on_end(CompletionEnd end) {
  metrics_.requests.of({end.reason == FinishReason::kStop ? "stop" : "length", model_})->add();
  metrics_.e2e_request_latency_seconds.observe(seconds(ServingClock::now() - received_at_));
  metrics_.prompt_tokens.add(static_cast<double>(end.prompt_tokens));
  metrics_.count_transfer(end.account);
  inner_->on_end(std::move(end));
}

void MeasuredSink::on_failure(const Failure& failure) {
  metrics_.requests.of({std::string(to_string(failure.code)), model_})->add();
  inner_->on_failure(failure);
}

}  // namespace scd
