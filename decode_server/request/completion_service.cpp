#include "decode_server/request/completion_service.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <random>
#include <utility>

#include "decode_server/request/measured_sink.h"
#include "decode_server/request/model_card.h"
#include "decode_server/request/replies.h"
#include "decode_server/request/to_proto.h"

namespace scd {
namespace {

// Ids of two runs of a server differ, so that logs and prefill servers never mix them up.
uint64_t first_id() { return uint64_t{std::random_device{}()} << 32; }

Result<v1::CompleteRequest> parse(const grpc::ByteBuffer* bytes) {
  grpc::ByteBuffer copy(*bytes);
  v1::CompleteRequest request;
  if (grpc::SerializationTraits<v1::CompleteRequest>::Deserialize(&copy, &request).ok()) return request;
  return Failure{
      ErrorCode::kInvalidArgument,
      "the request is no CompleteRequest, or one of its strings (text, model, stop, cache_salt, user) is not "
      "valid UTF-8"};
}

}  // namespace

CompletionService::CompletionService(Args args) : args_(std::move(args)), next_id_(first_id()) {}

// A reply exists from the start, so that every way to fail ends the call in one place.
template <class MakeReply>
auto CompletionService::serve(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                              MakeReply make_reply) {
  const auto now = ServingClock::now();
  const uint64_t id = next_id_.fetch_add(1, std::memory_order_relaxed);
  Result<v1::CompleteRequest> request = parse(bytes);
  Result<Checked> checked = request ? check(request.value()) : Result<Checked>(request.failure());
  const std::string model = checked ? checked.value().model->name() : "";
  auto handle = std::make_shared<std::weak_ptr<DecodeJob>>();
  auto reply = make_reply(ReplyContext{
      .request_id = id, .model = model, .echo = checked ? echo_of(request.value()) : "", .on_cancel = [this, handle] {
        if (const auto job = handle->lock()) job->cancel();
        args_.admission.wake();
        args_.compute.wake();
      }});
  auto job = std::make_shared<DecodeJob>(id, now, std::make_shared<MeasuredSink>(reply, args_.metrics, now, model));
  *handle = job;
  const auto submitted = checked ? submit(context, std::move(request).value(), std::move(checked).value(), job)
                                 : Result<Done>(checked.failure());
  if (!submitted) job->fail(submitted.failure());
  return reply.get();
}

Result<CompletionService::Checked> CompletionService::check(const v1::CompleteRequest& request) const {
  auto model = args_.models.find(request.model());
  if (!model) return model.failure();
  auto checked = check_request(model.value()->validation, request);
  if (!checked) return checked.failure();
  return Checked{std::move(model).value(), std::move(checked).value()};
}

Result<Done> CompletionService::submit(grpc::CallbackServerContext* context, v1::CompleteRequest request,
                                       Checked checked, const std::shared_ptr<DecodeJob>& job) {
  if (draining_.load(std::memory_order_acquire)) {
    return Failure{ErrorCode::kUnavailable, "the server is shutting down; send the request to another one"};
  }
  job->model = std::move(checked.model);
  job->request = std::move(checked.request);
  job->deadline = deadline_of(context, job->received_at);
  return args_.admission.submit(job, std::move(request));
}

ServingClock::time_point CompletionService::deadline_of(grpc::CallbackServerContext* context,
                                                        ServingClock::time_point now) const {
  const auto longest = now + args_.config.limits.request_timeout;
  const auto wanted = context->deadline();
  if (wanted == std::chrono::system_clock::time_point::max()) return longest;
  const auto left = wanted - std::chrono::system_clock::now();
  if (left > args_.config.limits.request_timeout) return longest;
  return now + std::chrono::duration_cast<ServingClock::duration>(left);
}

std::string CompletionService::echo_of(const v1::CompleteRequest& request) const {
  if (!request.echo()) return {};
  if (request.has_text()) return request.text();
  const auto& ids = request.token_ids().ids();
  return args_.tokenizer.decode({ids.data(), static_cast<size_t>(ids.size())}, /*skip_special=*/true);
}

grpc::ServerUnaryReactor* CompletionService::Complete(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return serve(context, request,
               [response](ReplyContext reply) { return UnaryReply::make(std::move(reply), response); });
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* CompletionService::CompleteStream(grpc::CallbackServerContext* context,
                                                                              const grpc::ByteBuffer* request) {
  return serve(context, request, [](ReplyContext reply) { return StreamReply::make(std::move(reply)); });
}

grpc::ServerUnaryReactor* CompletionService::ListModels(grpc::CallbackServerContext* context,
                                                        const v1::ListModelsRequest*,
                                                        v1::ListModelsResponse* response) {
  for (const auto& model : args_.models.list()) *response->add_models() = card_of(*model);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

CodecDecision CompletionService::default_codec(const ServedModel& model) const {
  const CodecOptions& options = args_.config.codec;
  const auto id = configured_codec(options);
  if (!id) return options.mode == CodecMode::kAuto ? model.codecs.present() : CodecDecision{};
  const RankCaps rank{options.rank.key, options.rank.value, options.rank.hidden, model.validation.level};
  return {.codec = CodecChoice{*id, rank}};
}

grpc::ServerUnaryReactor* CompletionService::GetServerInfo(grpc::CallbackServerContext* context,
                                                           const v1::GetServerInfoRequest*,
                                                           v1::GetServerInfoResponse* response) {
  const ServerCounters counters = args_.facts.counters();
  const auto model = args_.models.find("");  // it may have been unloaded
  const CodecDecision codec = model ? default_codec(*model.value()) : CodecDecision{};
  response->set_version(SCD_VERSION);
  response->set_model(args_.models.default_name());
  response->set_device(args_.facts.device);
  response->set_precision(args_.facts.precision);
  *response->mutable_codec() = to_proto(codec.codec);
  response->set_codec_reason(codec.reason);
  for (const EndpointFacts& facts : args_.facts.endpoints()) {
    v1::PrefillEndpoint& endpoint = *response->add_prefill_endpoints();
    endpoint.set_address(facts.address);
    endpoint.set_healthy(facts.healthy);
    endpoint.set_reason(facts.reason);
    endpoint.set_lanes(facts.lanes);
  }
  response->set_running_requests(static_cast<uint32_t>(counters.running));
  response->set_waiting_requests(static_cast<uint32_t>(counters.waiting));
  response->set_kv_pages(static_cast<uint32_t>(args_.facts.kv_pages));
  response->set_kv_pages_in_use(static_cast<uint32_t>(counters.pages_in_use));
  response->set_kv_pages_kept(static_cast<uint32_t>(counters.pages_kept));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace scd
