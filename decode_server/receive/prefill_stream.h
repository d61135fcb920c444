// One Prefill call to a prefill server: commands out, events in, on gRPC's threads.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "common/base/error.h"
#include "decode_server/transfer_account.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd {

class PrefillStream : private grpc::ClientBidiReactor<v1::PrefillCommand, v1::PrefillEvent> {
 public:
  // Called on gRPC's threads, one at a time; must not block for long. on_end is the last, called exactly once, with
  // the stream's status.
  struct Callbacks {
    std::function<void(const v1::PrefillEvent&, ServingClock::time_point received_at)> on_event;
    std::function<void(Result<Done>)> on_end;
  };

  // Starts the call and sends `start`. The stream keeps itself alive until on_end.
  static std::shared_ptr<PrefillStream> open(v1::PrefillService::Stub& stub, ServingClock::time_point deadline,
                                             v1::PrefillCommand start, Callbacks callbacks);

  // Never blocks; commands after the end are dropped. Any thread.
  void send(v1::PrefillCommand command);
  // Abandons the request; on_end follows soon. Any thread.
  void cancel() { context_.TryCancel(); }
  ServingClock::time_point started_at() const { return started_at_; }

 private:
  explicit PrefillStream(Callbacks callbacks);
  void write_next();  // under mutex_

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  Callbacks callbacks_;
  grpc::ClientContext context_;
  ServingClock::time_point started_at_;
  v1::PrefillEvent event_;
  std::shared_ptr<PrefillStream> self_;  // until OnDone: gRPC calls back into this object
  std::mutex mutex_;
  std::deque<v1::PrefillCommand> commands_;  // the first one is being written while writing_
  bool writing_ = false;
  bool ended_ = false;
};

}  // namespace scd
