// Events of one job on their way to the consumer: queued, written one at a time, then the stream's status.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <mutex>
#include <optional>

#include "prefill_server/job.h"
#include "scd/v1/prefill.pb.h"

namespace scd {

using PrefillReactor = grpc::ServerBidiReactor<v1::PrefillCommand, v1::PrefillEvent>;

// Thread-safe. The reactor lives at least until finish() was called on it, which this does once, last.
class EventWriter : public PrefillListener {
 public:
  EventWriter(PrefillReactor& reactor, PrefillClock::time_point received_at)
      : reactor_(reactor), received_at_(received_at) {}

  void accepted(const HandoverPlan& plan, const Sha256Digest& encoder_id) override;
  void chunk_sent(const TokenRange& chunk) override;
  void finished(const SpanLog& spans, uint64_t payload_bytes, size_t messages, const std::string& lanes) override;
  void failed(const Failure& failure) override;

  // The reactor's OnWriteDone.
  void written(bool ok);

  // For the accepted and chunk_sent events.
  void describe_plan(int32_t first_layer, int64_t chunk_tokens, int64_t queued_tokens);

 private:
  void post(v1::PrefillEvent event, std::optional<grpc::Status> last);
  void advance();

  PrefillReactor& reactor_;
  const PrefillClock::time_point received_at_;
  int32_t first_layer_ = 0;
  int64_t chunk_tokens_ = 0;
  int64_t queued_tokens_ = 0;
  int32_t layers_sent_ = 0;

  std::mutex mutex_;
  std::deque<v1::PrefillEvent> waiting_;
  v1::PrefillEvent writing_event_;  // unchanged while writing_
  bool writing_ = false;
  bool broken_ = false;    // a write failed: nobody reads any more
  bool finished_ = false;  // finish() was called
  std::optional<grpc::Status> status_;
};

}  // namespace scd
