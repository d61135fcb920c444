#include "decode_server/receive/prefill_stream.h"

#include <chrono>
#include <utility>

#include "common/rpc/status.h"

namespace scd {

std::shared_ptr<PrefillStream> PrefillStream::open(v1::PrefillService::Stub& stub, ServingClock::time_point deadline,
                                                   v1::PrefillCommand start, Callbacks callbacks) {
  std::shared_ptr<PrefillStream> stream(new PrefillStream(std::move(callbacks)));
  stream->self_ = stream;
  if (deadline != ServingClock::time_point::max()) {
    const auto left = std::chrono::duration_cast<std::chrono::system_clock::duration>(deadline - ServingClock::now());
    stream->context_.set_deadline(std::chrono::system_clock::now() + left);
  }
  stub.async()->Prefill(&stream->context_, stream.get());
  // Commands come from outside of reactions; the hold ends when the server has no more to say.
  stream->AddHold();
  stream->started_at_ = ServingClock::now();
  stream->send(std::move(start));
  stream->StartRead(&stream->event_);
  stream->StartCall();
  return stream;
}

PrefillStream::PrefillStream(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

void PrefillStream::send(v1::PrefillCommand command) {
  std::scoped_lock lock(mutex_);
  if (ended_) return;
  // Messages that are done while a command is on its way are named together.
  if (command.has_chunk_done() && commands_.size() > 1 && commands_.back().has_chunk_done()) {
    commands_.back().mutable_chunk_done()->MergeFrom(command.chunk_done());
    return;
  }
  commands_.push_back(std::move(command));
  if (!writing_) write_next();
}

void PrefillStream::write_next() {
  writing_ = !commands_.empty();
  if (writing_) StartWrite(&commands_.front());
}

void PrefillStream::OnReadDone(bool ok) {
  if (ok) {
    callbacks_.on_event(event_, ServingClock::now());
    StartRead(&event_);
    return;
  }
  {
    std::scoped_lock lock(mutex_);
    ended_ = true;
  }
  RemoveHold();
}

void PrefillStream::OnWriteDone(bool ok) {
  std::scoped_lock lock(mutex_);
  commands_.pop_front();
  if (!ok || ended_) {
    writing_ = false;
    return;
  }
  write_next();
}

// Whoever hears of the end may let go of the channel; this thread, which belongs to it, has done so by then
// (common/rpc/channel.h).
void PrefillStream::OnDone(const grpc::Status& status) {
  const std::function<void(Result<Done>)> on_end = std::move(callbacks_.on_end);
  const Result<Done> result = status.ok() ? Result<Done>(Done{}) : Result<Done>(to_failure(status));
  std::exchange(self_, nullptr).reset();
  on_end(result);
}

}  // namespace scd
