// Counts what becomes of a request on its way to the client: the outermost point every answer and every failure passes.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "decode_server/completion.h"
#include "decode_server/metrics.h"

namespace scd {

class MeasuredSink final : public CompletionSink {
 public:
  // model: empty where the request named none that is served.
  MeasuredSink(std::shared_ptr<CompletionSink> inner, DecodeMetrics& metrics, ServingClock::time_point received_at,
               std::string model)
      : inner_(std::move(inner)), metrics_(metrics), received_at_(received_at), model_(std::move(model)) {}

  void on_prompt(const PromptInfo& info) override { inner_->on_prompt(info); }
  void on_delta(CompletionDelta delta) override;
  void on_end(CompletionEnd end) override;
  void on_failure(const Failure& failure) override;

 private:
  const std::shared_ptr<CompletionSink> inner_;  // shared with gRPC's call
  DecodeMetrics& metrics_;
  const ServingClock::time_point received_at_;
  const std::string model_;
  std::optional<ServingClock::time_point> last_token_at_;
};

}  // namespace scd
