// The PrefillService: one reactor a call, which reads commands and passes them to the stages behind.
#pragma once

#include <chrono>

#include "prefill_server/producer.h"
#include "prefill_server/stages.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd {

class PrefillService final : public v1::PrefillService::CallbackService {
 public:
  struct Args {
    const Producer& producer;
    HandoverService& handover;
    std::chrono::milliseconds request_timeout;
  };

  // The arguments must outlive the service.
  explicit PrefillService(Args args) : args_(args) {}

  grpc::ServerBidiReactor<v1::PrefillCommand, v1::PrefillEvent>* Prefill(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetProducerInfo(grpc::CallbackServerContext* context,
                                            const v1::GetProducerInfoRequest* request,
                                            v1::GetProducerInfoResponse* response) override;

 private:
  const Args args_;
};

}  // namespace scd
