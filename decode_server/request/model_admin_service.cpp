#include "decode_server/request/model_admin_service.h"

#include <pthread.h>

#include <new>
#include <utility>

#include "common/log/log.h"
#include "common/rpc/status.h"
#include "decode_server/request/model_card.h"

namespace scd {
namespace {

constexpr size_t kMostWaiting = 16;

Failure shutting_down() { return {ErrorCode::kUnavailable, "the server is shutting down"}; }

void finish(grpc::ServerUnaryReactor* reactor, const Result<Done>& outcome) {
  reactor->Finish(outcome ? grpc::Status::OK : to_status(outcome.failure()));
}

Failure not_loaded(const std::string& name, Failure failure) {
  log_warning("model_not_loaded", {{"model", name}, {"reason", failure.message}});
  return failure;
}

}  // namespace

ModelAdminService::ModelAdminService(const Args& args)
    : args_(args), inbox_(kMostWaiting), thread_([this] {
        pthread_setname_np(pthread_self(), "models");
        run();
      }) {}

void ModelAdminService::stop() {
  close();
  if (thread_.joinable()) thread_.join();
}

void ModelAdminService::run() {
  while (auto work = inbox_.pop()) (*work)(inbox_.closed());
}

grpc::ServerUnaryReactor* ModelAdminService::LoadModel(grpc::CallbackServerContext* context,
                                                       const v1::LoadModelRequest* request,
                                                       v1::LoadModelResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // Context, request and response live until the reactor is finished.
  const bool taken = inbox_.try_push([this, context, reactor, request, response](bool stopping) {
    if (stopping) return finish(reactor, shutting_down());
    if (context->IsCancelled()) return finish(reactor, Failure{ErrorCode::kCancelled, "the client cancelled the call"});
    finish(reactor, load(*request, *response));
  });
  if (!taken) {
    finish(reactor, inbox_.closed()
                        ? shutting_down()
                        : Failure{ErrorCode::kResourceExhausted,
                                  std::to_string(kMostWaiting) + " models wait to be loaded; try again later"});
  }
  return reactor;
}

Result<Done> ModelAdminService::load(const v1::LoadModelRequest& request, v1::LoadModelResponse& response) const {
  try {
    check_model_name("name", request.name());
    const bool taken = args_.models.find(request.name()).ok();
    if (taken && !request.load_inplace()) {  // before anything is read
      return Failure{ErrorCode::kAlreadyExists, "name: '" + request.name() + "' is served already"};
    }
    auto model =
        args_.loader.load({.name = request.name(), .adapter = request.adapter(), .artifact = request.artifact()});
    *response.mutable_model() = card_of(*model);
    return args_.models.add(std::move(model), request.load_inplace());
  } catch (const Error& error) {
    return not_loaded(request.name(), error.failure());
  } catch (const std::bad_alloc& error) {
    return not_loaded(request.name(),
                      {ErrorCode::kResourceExhausted, std::string("memory of the decode server: ") + error.what()});
  } catch (const std::exception& error) {  // whatever it is, the other models are to be served on
    return not_loaded(request.name(), {ErrorCode::kInternal, error.what()});
  }
}

grpc::ServerUnaryReactor* ModelAdminService::UnloadModel(grpc::CallbackServerContext* context,
                                                         const v1::UnloadModelRequest* request,
                                                         v1::UnloadModelResponse*) {
  const Result<Done> removed = args_.models.remove(request->name());
  if (removed) log_info("model_unloaded", {{"model", request->name()}});
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  finish(reactor, removed);
  return reactor;
}

}  // namespace scd
