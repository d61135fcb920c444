#include "decode_server/request/replies.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <utility>

#include "common/rpc/status.h"
#include "decode_server/request/to_proto.h"

namespace scd {
namespace {

template <class Message>
grpc::ByteBuffer serialize(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own = false;
  const grpc::Status status = grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own);
  SCD_CHECK(status.ok(), "our own messages can be serialised");
  return bytes;
}

}  // namespace

std::shared_ptr<UnaryReply> UnaryReply::make(ReplyContext context, grpc::ByteBuffer* response) {
  std::shared_ptr<UnaryReply> reply(new UnaryReply(std::move(context), response));
  reply->self_ = reply;
  return reply;
}

UnaryReply::UnaryReply(ReplyContext context, grpc::ByteBuffer* response)
    : context_(std::move(context)), response_(response) {
  answer_.set_request_id(request_id_text(context_.request_id));
  answer_.set_model(context_.model);
  answer_.set_text(context_.echo);
}

void UnaryReply::on_prompt(const PromptInfo& info) {
  *answer_.mutable_prompt() = to_proto(info, context_.request_id, context_.model);
}

void UnaryReply::on_delta(CompletionDelta delta) {
  answer_.mutable_text()->append(delta.text);
  answer_.mutable_token_ids()->Add(delta.ids.begin(), delta.ids.end());
  for (const PositionLogprobs& logprobs : delta.logprobs) *answer_.add_logprobs() = to_proto(logprobs);
}

void UnaryReply::on_end(CompletionEnd end) {
  *answer_.mutable_finish() = to_proto(end);
  *response_ = serialize(answer_);
  Finish(grpc::Status::OK);
}

void UnaryReply::on_failure(const Failure& failure) { Finish(to_status(failure)); }

std::shared_ptr<StreamReply> StreamReply::make(ReplyContext context) {
  std::shared_ptr<StreamReply> reply(new StreamReply(std::move(context)));
  reply->self_ = reply;
  return reply;
}

StreamReply::StreamReply(ReplyContext context) : context_(std::move(context)) {}

void StreamReply::on_prompt(const PromptInfo& info) {
  v1::CompleteStreamResponse message;
  *message.mutable_prompt() = to_proto(info, context_.request_id, context_.model);
  send(message);
  if (!context_.echo.empty()) on_delta({.text = context_.echo, .ids = {}, .logprobs = {}});
}

void StreamReply::on_delta(CompletionDelta delta) {
  v1::CompleteStreamResponse message;
  *message.mutable_delta() = to_proto(delta);
  send(message);
}

void StreamReply::on_end(CompletionEnd end) {
  v1::CompleteStreamResponse message;
  *message.mutable_finish() = to_proto(end);
  send(message);
  finish(grpc::Status::OK);
}

void StreamReply::on_failure(const Failure& failure) { finish(to_status(failure)); }

void StreamReply::send(const v1::CompleteStreamResponse& message) {
  grpc::ByteBuffer bytes = serialize(message);
  std::scoped_lock lock(mutex_);
  if (broken_) return;
  outgoing_.push_back(std::move(bytes));
  if (!writing_) next();
}

void StreamReply::finish(const grpc::Status& status) {
  std::scoped_lock lock(mutex_);
  status_ = status;
  if (!writing_) next();
}

void StreamReply::next() {
  if (!outgoing_.empty()) {
    writing_ = true;
    StartWrite(&outgoing_.front());
  } else if (status_ && !std::exchange(finishing_, true)) {
    Finish(*status_);
  }
}

void StreamReply::OnWriteDone(bool ok) {
  std::scoped_lock lock(mutex_);
  writing_ = false;
  outgoing_.pop_front();
  if (!ok) {
    broken_ = true;
    outgoing_.clear();
  }
  next();
}

}  // namespace scd
