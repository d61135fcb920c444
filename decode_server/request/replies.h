// The two ways an answer leaves: at once, or as it is generated. Both live until gRPC is done with the call and the job
// has said its last word.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "decode_server/completion.h"
#include "decode_server/job.h"
#include "scd/v1/completion.pb.h"

namespace scd {

// What a reply knows of its request.
struct ReplyContext {
  uint64_t request_id = 0;
  std::string model;
  std::string echo;                 // sent before the completion; empty: none
  std::function<void()> on_cancel;  // marks the job as cancelled and wakes who works on it
};

class UnaryReply : public grpc::ServerUnaryReactor, public CompletionSink {
 public:
  // `response` belongs to gRPC and lives as long as the call.
  static std::shared_ptr<UnaryReply> make(ReplyContext context, grpc::ByteBuffer* response);

  void on_prompt(const PromptInfo& info) override;
  void on_delta(CompletionDelta delta) override;
  void on_end(CompletionEnd end) override;
  void on_failure(const Failure& failure) override;

 private:
  UnaryReply(ReplyContext context, grpc::ByteBuffer* response);
  void OnCancel() override { context_.on_cancel(); }
  void OnDone() override { const auto last = std::move(self_); }

  const ReplyContext context_;
  grpc::ByteBuffer* const response_;
  v1::CompleteResponse answer_;       // of whoever calls the sink, one at a time
  std::shared_ptr<UnaryReply> self_;  // shared: gRPC holds a plain pointer until OnDone
};

class StreamReply : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public CompletionSink {
 public:
  static std::shared_ptr<StreamReply> make(ReplyContext context);

  void on_prompt(const PromptInfo& info) override;
  void on_delta(CompletionDelta delta) override;
  void on_end(CompletionEnd end) override;
  void on_failure(const Failure& failure) override;

 private:
  explicit StreamReply(ReplyContext context);
  void send(const v1::CompleteStreamResponse& message);
  void finish(const grpc::Status& status);
  void next();  // under mutex_: writes, or finishes when all is written

  void OnWriteDone(bool ok) override;
  void OnCancel() override { context_.on_cancel(); }
  void OnDone() override { const auto last = std::move(self_); }

  const ReplyContext context_;
  std::shared_ptr<StreamReply> self_;  // shared: gRPC holds a plain pointer until OnDone
  std::mutex mutex_;
  std::deque<grpc::ByteBuffer> outgoing_;  // the first one is being written while writing_
  bool writing_ = false;
  bool broken_ = false;     // the client is gone: nothing more is written
  bool finishing_ = false;  // Finish was called
  std::optional<grpc::Status> status_;
};

}  // namespace scd
