#include "prefill_server/request/event_writer.h"

#include <chrono>
#include <utility>

#include "common/rpc/status.h"

namespace scd {
namespace {

int64_t microseconds(PrefillClock::duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

v1::Part to_proto(PrefillPart part) {
  switch (part) {
    case PrefillPart::kQueue: return v1::PART_QUEUE;
    case PrefillPart::kPrefill: return v1::PART_PREFILL;
    case PrefillPart::kEncode: return v1::PART_ENCODE;
    case PrefillPart::kWire: return v1::PART_WIRE;
  }
  return v1::PART_UNSPECIFIED;
}

}  // namespace

void EventWriter::describe_plan(int32_t first_layer, int64_t chunk_tokens, int64_t queued_tokens) {
  first_layer_ = first_layer;
  chunk_tokens_ = chunk_tokens;
  queued_tokens_ = queued_tokens;
}

void EventWriter::accepted(const HandoverPlan& plan, const Sha256Digest& encoder_id) {
  layers_sent_ = plan.layers.units.empty() ? 0 : plan.layers.units.back().end() - first_layer_;
  v1::PrefillEvent event;
  v1::PrefillAccepted& accepted = *event.mutable_accepted();
  accepted.set_handover_tokens(static_cast<uint32_t>(plan.handover_tokens));
  accepted.set_cached_tokens(static_cast<uint32_t>(plan.cached_tokens));
  accepted.set_encoder_id(encoder_id.data(), encoder_id.size());
  accepted.set_first_token(static_cast<uint32_t>(plan.first_token()));
  accepted.set_chunk_tokens(static_cast<uint32_t>(chunk_tokens_));
  accepted.set_layers(static_cast<uint32_t>(first_layer_ + layers_sent_));
  accepted.set_messages(static_cast<uint32_t>(plan.messages()));
  accepted.set_queued_tokens(static_cast<uint64_t>(queued_tokens_));
  post(std::move(event), std::nullopt);
}

void EventWriter::chunk_sent(const TokenRange& chunk) {
  v1::PrefillEvent event;
  v1::ChunkSent& sent = *event.mutable_chunk_sent();
  sent.set_first_token(static_cast<uint32_t>(chunk.first));
  sent.set_token_count(static_cast<uint32_t>(chunk.count));
  sent.set_first_layer(static_cast<uint32_t>(first_layer_));
  sent.set_layer_count(static_cast<uint32_t>(layers_sent_));
  post(std::move(event), std::nullopt);
}

void EventWriter::finished(const SpanLog& spans, uint64_t payload_bytes, size_t messages, const std::string& lanes) {
  v1::PrefillEvent event;
  v1::PrefillFinished& finished = *event.mutable_finished();
  finished.set_prefill_us(static_cast<uint64_t>(microseconds(spans.total(PrefillPart::kPrefill))));
  finished.set_computed_us(static_cast<uint64_t>(microseconds(spans.computed())));
  finished.set_encode_us(static_cast<uint64_t>(microseconds(spans.total(PrefillPart::kEncode))));
  finished.set_queue_us(static_cast<uint64_t>(microseconds(spans.total(PrefillPart::kQueue))));
  finished.set_payload_bytes(payload_bytes);
  finished.set_messages(static_cast<uint32_t>(messages));
  finished.set_lanes(lanes);
  for (const PrefillSpan& span : spans.sorted()) {
    v1::Span& to = *finished.add_spans();
    to.set_part(to_proto(span.part));
    to.set_start_us(microseconds(span.start - received_at_));
    to.set_end_us(microseconds(span.end - received_at_));
  }
  post(std::move(event), grpc::Status::OK);
}

void EventWriter::failed(const Failure& failure) {
  v1::PrefillEvent event;
  event.mutable_failed()->set_code(static_cast<uint32_t>(failure.code));
  event.mutable_failed()->set_message(failure.message);
  post(std::move(event), to_status(failure));
}

void EventWriter::post(v1::PrefillEvent event, std::optional<grpc::Status> last) {
  {
    std::scoped_lock lock(mutex_);
    if (status_) return;
    status_ = std::move(last);
    waiting_.push_back(std::move(event));
  }
  advance();
}

void EventWriter::written(bool ok) {
  {
    std::scoped_lock lock(mutex_);
    writing_ = false;
    broken_ = broken_ || !ok;
  }
  advance();
}

// One operation at a time is open on the reactor, so it is safe to start the next one outside the lock.
void EventWriter::advance() {
  enum class Next { kNothing, kWrite, kFinish } next = Next::kNothing;
  {
    std::scoped_lock lock(mutex_);
    if (writing_ || finished_) return;
    if (broken_) waiting_.clear();
    if (!waiting_.empty()) {
      writing_event_ = std::move(waiting_.front());
      waiting_.pop_front();
      writing_ = true;
      next = Next::kWrite;
    } else if (status_) {
      finished_ = true;
      next = Next::kFinish;
    }
  }
  if (next == Next::kWrite) reactor_.StartWrite(&writing_event_);
  if (next == Next::kFinish) reactor_.Finish(*status_);
}

}  // namespace scd
