// Jobs without a consumer, for tests of one stage.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "prefill_server/job.h"

namespace scd::testing {

class QuietListener final : public PrefillListener {
 public:
  void accepted(const HandoverPlan&, const Sha256Digest&) override {}
  void chunk_sent(const TokenRange&) override {}
  void finished(const SpanLog&, uint64_t, size_t, const std::string&) override {}
  void failed(const Failure&) override {}
};

// Of a model of `layers` layers; its codes are empty.
class EmptyEncoder final : public Encoder {
 public:
  explicit EmptyEncoder(int32_t layers) : layers_(layers) {}
  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(layers_, exact_layers); }
  void encode(const LayerChunk&, const RankCaps&, ByteBuffer&) const override {}

 private:
  const int32_t layers_;
  Sha256Digest id_{};
};

// In chunks of 16 tokens.
inline std::shared_ptr<PrefillJob> quiet_job(int64_t tokens, const Encoder& encoder, PrefillJob::OnEnd on_end,
                                             int32_t exact_layers = 0) {
  PrefillRequest request;
  request.slot_bytes = 1 << 20;
  request.tokens.resize(static_cast<size_t>(tokens));
  request.handover_tokens = tokens;
  request.received_at = PrefillClock::now();
  HandoverPlan plan{.handover_tokens = tokens,
                    .cached_tokens = 0,
                    .chunks = chunks_until(tokens, 0, 16),
                    .layers = encoder.plan(exact_layers).value_or_throw()};
  PrefixNames names({}, request.tokens);
  return std::make_shared<PrefillJob>(PrefillJob::Args{.request = std::move(request),
                                                       .plan = std::move(plan),
                                                       .names = std::move(names),
                                                       .encoder = encoder,
                                                       .listener = std::make_shared<QuietListener>(),
                                                       .on_end = std::move(on_end)});
}

}  // namespace scd::testing
