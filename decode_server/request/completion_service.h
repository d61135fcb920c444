// The public gRPC API. Callback style: a waiting call costs memory, not a thread.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "decode_server/counters.h"
#include "decode_server/metrics.h"
#include "decode_server/model_registry.h"
#include "decode_server/request/admission.h"
#include "decode_server/request/validation.h"
#include "decode_server/stages.h"
#include "scd/v1/completion.grpc.pb.h"

namespace scd {

struct ServerFacts {
  std::string device;     // as configured
  std::string precision;  // "bf16", "fp32"
  int32_t kv_pages = 0;
  std::function<ServerCounters()> counters;
  std::function<std::vector<EndpointFacts>()> endpoints;
};

// Complete and CompleteStream are raw, so that a message gRPC would refuse with INTERNAL (a string that is not UTF-8)
// is the client's INVALID_ARGUMENT.
using RawCompletionService = v1::CompletionService::WithRawCallbackMethod_Complete<
    v1::CompletionService::WithRawCallbackMethod_CompleteStream<v1::CompletionService::WithCallbackMethod_ListModels<
        v1::CompletionService::WithCallbackMethod_GetServerInfo<v1::CompletionService::Service>>>>;

class CompletionService final : public RawCompletionService {
 public:
  struct Args {
    const DecodeConfig& config;
    const Tokenizer& tokenizer;
    const ModelRegistry& models;
    Admission& admission;
    ComputeStage& compute;
    DecodeMetrics& metrics;
    ServerFacts facts;
  };
  explicit CompletionService(Args args);

  // New completions end with UNAVAILABLE from now on.
  void drain() { draining_.store(true, std::memory_order_release); }

  grpc::ServerUnaryReactor* Complete(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* CompleteStream(grpc::CallbackServerContext* context,
                                                             const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest* request,
                                          v1::GetServerInfoResponse* response) override;

 private:
  struct Checked {
    std::shared_ptr<ServedModel> model;  // shared as ServedModel says
    CompletionRequest request;
  };
  template <class MakeReply>
  auto serve(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request, MakeReply make_reply);
  Result<Done> submit(grpc::CallbackServerContext* context, v1::CompleteRequest request, Checked checked,
                      const std::shared_ptr<DecodeJob>& job);
  Result<Checked> check(const v1::CompleteRequest& request) const;
  ServingClock::time_point deadline_of(grpc::CallbackServerContext* context, ServingClock::time_point now) const;
  std::string echo_of(const v1::CompleteRequest& request) const;
  CodecDecision default_codec(const ServedModel& model) const;  // of requests without an override

  const Args args_;
  std::atomic<uint64_t> next_id_;
  std::atomic<bool> draining_{false};  // release/acquire
};

}  // namespace scd
