// A prefill server in miniature: says over gRPC what a test tells it to say, and sends messages over a loopback
// transport.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "common/base/crc32c.h"
#include "common/rpc/server.h"
#include "common/transport/loopback.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd::testing {

inline TransportOptions loopback_options() {
  TransportOptions options;
  options.kind = TransportKind::kLoopback;
  options.slot_bytes = 1 << 12;
  options.slots = 4;
  return options;
}

class Producer final : private v1::PrefillService::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::PrefillEvent, v1::PrefillCommand>;
  // What it does after `start`; the stream ends with the status it returns.
  using Script = std::function<grpc::Status(const v1::StartPrefill&, Stream&)>;

  Producer(v1::GetProducerInfoResponse info, LoopbackNetwork& network, Script script)
      : info_(std::move(info)),
        script_(std::move(script)),
        transport_(make_loopback_transport(loopback_options(), network)),
        rpc_(GrpcOptions{}, {{v1::PrefillService::service_full_name(), this}}) {
    rpc_.set_serving(true);
  }

  const std::string& address() const { return rpc_.address(); }

  // An acceptance that is right in everything.
  v1::PrefillEvent acceptance(const v1::StartPrefill& start) const {
    v1::PrefillEvent event;
    v1::PrefillAccepted& accepted = *event.mutable_accepted();
    accepted.set_handover_tokens(start.handover_tokens());
    accepted.set_encoder_id(start.expected_encoder_id());
    accepted.set_first_token(start.skip_tokens());
    accepted.set_chunk_tokens(info_.chunk_tokens());
    accepted.set_layers(info_.layers());
    return event;
  }

  void send_message(const v1::StartPrefill& start, uint32_t sequence) {
    SendJob job{.peer = start.data_plane_address(), .payload = SharedBytes::from(ByteBuffer(100))};
    job.header.request_id = start.request_id();
    job.header.generation = start.generation();
    std::copy(start.transfer_token().begin(), start.transfer_token().end(), job.header.token.begin());
    job.header.sequence = sequence;
    job.header.payload_crc = crc32c(job.payload.bytes);
    (void)transport_->send(std::move(job));
  }

  // GetProducerInfo is not answered until it goes on.
  void hang() { hangs_ = true; }
  void go_on() {
    hangs_ = false;
    hangs_.notify_all();
  }

 private:
  grpc::Status GetProducerInfo(grpc::ServerContext*, const v1::GetProducerInfoRequest*,
                               v1::GetProducerInfoResponse* response) override {
    hangs_.wait(true);
    *response = info_;
    return grpc::Status::OK;
  }
  grpc::Status Prefill(grpc::ServerContext*, Stream* stream) override {
    v1::PrefillCommand command;
    if (!stream->Read(&command)) return grpc::Status::CANCELLED;
    return script_(command.start(), *stream);
  }

  const v1::GetProducerInfoResponse info_;
  const Script script_;
  std::atomic<bool> hangs_ = false;
  std::unique_ptr<Transport> transport_;
  RpcServer rpc_;
};

}  // namespace scd::testing
