// Models come and go while the server runs. Loading reads files for seconds: it has a thread of its own, one call after
// the other.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "common/threads/bounded_queue.h"
#include "decode_server/model_loader.h"
#include "decode_server/model_registry.h"
#include "scd/v1/model_admin.grpc.pb.h"

namespace scd {

class ModelAdminService final
    : public v1::ModelAdminService::WithCallbackMethod_LoadModel<
          v1::ModelAdminService::WithCallbackMethod_UnloadModel<v1::ModelAdminService::Service>> {
 public:
  struct Args {
    const ModelLoader& loader;
    ModelRegistry& models;
  };
  explicit ModelAdminService(const Args& args);
  ~ModelAdminService() override { stop(); }

  // Calls that wait, or come later, end with UNAVAILABLE. Any thread.
  void close() { inbox_.close(); }
  // Closes, and waits for the call that is loading.
  void stop();

  // RESOURCE_EXHAUSTED where many calls wait already.
  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* context, const v1::LoadModelRequest* request,
                                      v1::LoadModelResponse* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context, const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse* response) override;

 private:
  using Work = std::function<void(bool stopping)>;

  void run();
  Result<Done> load(const v1::LoadModelRequest& request, v1::LoadModelResponse& response) const;

  const Args args_;
  BoundedQueue<Work> inbox_;
  std::jthread thread_;
};

}  // namespace scd
