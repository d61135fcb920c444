#include "prefill_server/queued_spans.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace scd {
namespace {

PrefillClock::duration rounded(std::chrono::duration<double> time) {
  return std::chrono::duration_cast<PrefillClock::duration>(time);
}

}  // namespace

void QueuedSpans::begin_layer() {
  settle(of_layer_);
  of_layer_ = 0;
}

void QueuedSpans::begin(kernels::Device device) {
  if (spare_.empty()) spare_.emplace_back();
  if (open_.empty()) open_.splice(open_.end(), spare_, spare_.begin());
  Queued& span = open_.front();
  span.device = device;
  span.begun = PrefillClock::now();
  if (device == kernels::Device::kCpu) return;
  if (queued_.empty()) {
    base_.mark(device);
    base_.wait();
    base_time_ = PrefillClock::now();
  }
  span.begin.mark(device);
}

uint64_t QueuedSpans::end(PrefillPart part, std::vector<Share> shares) {
  Queued& span = open_.front();
  span.part = part;
  span.shares = std::move(shares);
  span.end.mark(span.device);
  const bool done = span.device == kernels::Device::kCpu;
  queued_.splice(queued_.end(), open_);
  ++of_layer_;
  ++ended_;
  if (done) settle();
  return ended_;
}

void QueuedSpans::settle_until(uint64_t span) { settle(std::min<uint64_t>(ended_ - span, queued_.size())); }

PrefillSpan QueuedSpans::span_of(const Queued& queued) const {
  if (queued.device == kernels::Device::kCpu) return {queued.part, queued.begun, PrefillClock::now()};
  return {queued.part, base_time_ + rounded(kernels::QueuePoint::between(base_, queued.begin)),
          base_time_ + rounded(kernels::QueuePoint::between(base_, queued.end))};
}

void QueuedSpans::settle(size_t most_left) {
  while (queued_.size() > most_left) {
    const Queued& oldest = queued_.front();
    if (oldest.device != kernels::Device::kCpu) oldest.end.wait();
    const PrefillSpan span = span_of(oldest);
    spare_.splice(spare_.end(), queued_, queued_.begin());
    for (const Share& share : std::exchange(spare_.back().shares, {})) {
      share.job->spans.add(span);
      if (span.part != PrefillPart::kPrefill) continue;
      const auto own = (span.end - span.start) * share.own;
      share.job->spans.add_computed(std::chrono::duration_cast<PrefillClock::duration>(own));
    }
  }
  of_layer_ = std::min(of_layer_, queued_.size());
}

}  // namespace scd
