#include "common/rebuild/plan_rebuild.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/rebuild/decoded_rows.h"

namespace scd {

namespace {

// Of one anchor: it is not in the memory that the cache's size leaves room for.
constexpr int64_t kMostKeptBytes = int64_t{128} << 20;

}  // namespace

PlanRebuild::PlanRebuild(Args args)
    : args_(args),
      spans_(args.plan.units.size()),
      kept_anchors_(args.plan.units.size() + 1),
      keeps_anchors_(std::ssize(args.tokens) * args.model.config().hidden * int64_t{sizeof(kernels::BFloat16)} <=
                     kMostKeptBytes) {
  for (KeptAnchor& kept : kept_anchors_) kept.restart(0, std::ssize(args_.tokens));
  for (size_t unit = 0; unit < spans_.size(); ++unit) {
    const CodedUnit& coded = args_.plan.units[unit];
    if (!coded.residual) continue;
    spans_[unit] =
        std::make_unique<NativeLayers>(NativeLayers::Args{.model = args_.model,
                                                          .cache = args_.cache,
                                                          .pages = args_.pages,
                                                          .tokens = args_.tokens,
                                                          .first_token = args_.exact_tokens,
                                                          .first_layer = coded.first_layer,
                                                          .layers = coded.layers,
                                                          .keep_anchor = args_.decoder.needs_anchor(coded.end() - 1),
                                                          .adapter = args_.adapter});
  }
}

bool PlanRebuild::needs_anchor(size_t unit) const {
  const int32_t anchor = args_.plan.anchor_of(unit);
  return anchor >= 0 && args_.decoder.needs_anchor(anchor);
}

// The native layers that end at the unit's anchor: 0 the exact ones, else the span of the unit before.
size_t PlanRebuild::run_before(size_t unit) const {
  while (unit > 0 && !spans_[unit - 1]) --unit;
  return unit;
}

const NativeLayers& PlanRebuild::run(size_t index) const {
  if (index > 0) return *spans_[index - 1];
  SCD_CHECK(args_.exact_layers != nullptr, "exact layers before the first unit");
  return *args_.exact_layers;
}

// Decoders that work on the CPU read there.
kernels::ConstMatrix PlanRebuild::anchor_for_decoder(const kernels::ConstMatrix& anchor) {
  if (anchor.device == kernels::Device::kCpu || args_.decoder.device() == anchor.device) return anchor;
  const kernels::Matrix here = anchor_memory_.matrix(anchor.rows, anchor.columns);
  kernels::copy(anchor, here);
  return here;
}

bool PlanRebuild::applicable(int32_t first_layer, int64_t first_position, int64_t tokens) const {
  const size_t unit = args_.plan.unit_at(first_layer);
  if (unit == spans_.size()) return !running();
  const int64_t end = first_position + tokens;
  if (needs_anchor(unit) && run(run_before(unit)).done_tokens() < end) return false;
  if (running()) return takes_along(unit, first_position, tokens);
  // A span's tokens attend to those before them.
  return !spans_[unit] || end <= args_.exact_tokens ||
         spans_[unit]->done_tokens() == std::max(first_position, args_.exact_tokens);
}

// A span that has not begun, and the tokens behind those it has.
bool PlanRebuild::takes_along(size_t unit, int64_t first_position, int64_t tokens) const {
  return running_ == spans_[unit].get() && !running_->running() &&
         first_position == running_->done_tokens() + running_tokens_ && running_tokens_ + tokens <= args_.native_rows;
}

Result<Done> PlanRebuild::apply(int32_t first_layer, int64_t first_position, int64_t tokens,
                                std::span<const std::byte> payload) {
  PayloadPlace place{first_layer, first_position, tokens};
  add_anchor(place);
  if (auto decoded = args_.decoder.decode(place, payload, decoded_); !decoded) return decoded;
  place_decoded(place);
  return Done{};
}

void PlanRebuild::apply(const CodeBlock& block) {
  PayloadPlace place = block.place;
  add_anchor(place);
  args_.decoder.decode_block(place, block, decoded_);
  place_decoded(place);
}

void PlanRebuild::add_anchor(PayloadPlace& place) {
  const size_t unit = args_.plan.unit_at(place.layer);
  if (unit < spans_.size() && needs_anchor(unit)) {
    const size_t index = run_before(unit);
    place.anchor = anchor_for_decoder(run(index).anchor(place.first_position, place.tokens));
    if (keeps_anchors_) place.kept_anchor = &kept_anchors_[index];
  }
}

void PlanRebuild::place_decoded(const PayloadPlace& place) {
  const int64_t skipped = std::min(std::max<int64_t>(args_.exact_tokens - place.first_position, 0), place.tokens);
  if (decoded_.kind != DecodedKind::kResidual) {
    write_decoded(args_.model, args_.cache, {args_.pages, place.layer, place.first_position, skipped, args_.adapter},
                  decoded_);
  } else if (skipped < place.tokens) {
    add_to_span(*spans_.at(args_.plan.unit_at(place.layer)), decoded_rows(decoded_.hidden_rows(), skipped));
  }
}

void PlanRebuild::add_to_span(NativeLayers& span, kernels::ConstMatrix residual) {
  if (!running()) {
    const int64_t left = std::ssize(args_.tokens) - span.done_tokens();
    joined_ = joined_memory_.matrix(std::max(std::min(args_.native_rows, left), residual.rows), residual.columns,
                                    kernels::DType::kF32, residual.device);
    running_ = &span;
  }
  kernels::Matrix to = joined_;
  to.data = joined_.row<float>(running_tokens_);
  to.rows = residual.rows;
  kernels::copy(residual, to);
  running_tokens_ += residual.rows;
}

void PlanRebuild::run_layer() {
  SCD_CHECK(running(), "a native span is running");
  if (!running_->running()) {
    joined_.rows = running_tokens_;
    running_->begin(joined_);
  }
  running_->run_layer();
  if (running_->running()) return;
  running_ = nullptr;
  running_tokens_ = 0;
}

bool PlanRebuild::span_done(size_t unit, int64_t end) const {
  return !spans_[unit] || spans_[unit]->done_tokens() >= end;
}

}  // namespace scd
