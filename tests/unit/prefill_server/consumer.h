// A decode server in miniature: asks a prefill server for codes over gRPC and receives them over a loopback transport.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/rpc/channel.h"
#include "common/threads/bounded_queue.h"
#include "common/transport/loopback.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd::testing {

inline TransportOptions loopback_options() {
  TransportOptions options;
  options.kind = TransportKind::kLoopback;
  options.slot_bytes = 1 << 16;
  options.slots = 32;
  return options;
}

struct Received {
  std::map<std::pair<int, int>, ByteBuffer> payloads;  // by layer and first token
  std::vector<std::pair<int, int>> order;
  std::vector<v1::PrefillEvent> events;
  grpc::Status status;

  const v1::PrefillAccepted& accepted() const { return events.front().accepted(); }
  const v1::PrefillFinished& finished() const { return events.back().finished(); }
};

class Consumer {
 public:
  Consumer(const std::string& server, LoopbackNetwork& network)
      : stub_(v1::PrefillService::NewStub(make_channel(server, {}))),
        transport_(make_loopback_transport(loopback_options(), network)) {}

  // A start that is right in everything.
  v1::StartPrefill start(std::vector<int32_t> tokens, uint32_t handover) {
    v1::StartPrefill start;
    start.set_request_id(++last_request_);
    start.set_generation(1);
    start.mutable_token_ids()->Add(tokens.begin(), tokens.end());
    start.set_handover_tokens(handover);
    start.mutable_codec()->set_codec(v1::CODEC_RAW);
    start.set_transfer_token(std::string(16, static_cast<char>(last_request_)));
    start.set_data_plane_address(transport_->address());
    start.set_slot_bytes(transport_->slot_bytes());
    start.set_credit_messages(8);
    return start;
  }

  // One call: an open lease and stream.
  class Call {
   public:
    Call(Consumer& consumer, const v1::StartPrefill& start) {
      LeaseRequest request{.key = {start.request_id(), start.generation()},
                           .token = {},
                           .slots = start.credit_messages(),
                           .on_message = [this](ReceivedMessage message) { inbox_.push(std::move(message)); },
                           .on_failure = [](const Failure&) {}};
      std::copy(start.transfer_token().begin(), start.transfer_token().end(), request.token.begin());
      lease_ = consumer.transport_->open_lease(std::move(request)).value_or_throw();
      stream_ = consumer.stub_->Prefill(&context_);
      v1::PrefillCommand command;
      *command.mutable_start() = start;
      stream_->Write(command);
    }

    // Waits for the next message; nothing after the timeout.
    std::optional<ReceivedMessage> message(std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
      return inbox_.pop_until(std::chrono::steady_clock::now() + timeout);
    }
    void acknowledge(uint32_t sequence) { acknowledge(std::vector{sequence}); }
    void acknowledge(const std::vector<uint32_t>& sequences) {
      v1::PrefillCommand command;
      for (const uint32_t sequence : sequences) command.mutable_chunk_done()->add_sequence(sequence);
      stream_->Write(command);
    }
    void write(const v1::PrefillCommand& command) { stream_->Write(command); }
    std::optional<v1::PrefillEvent> event() {
      v1::PrefillEvent event;
      if (!stream_->Read(&event)) return std::nullopt;
      return event;
    }
    void cancel() { context_.TryCancel(); }
    // Reads what is left and ends.
    Received end() {
      Received received;
      while (auto next = event()) received.events.push_back(std::move(*next));
      received.status = stream_->Finish();
      return received;
    }

   private:
    BoundedQueue<ReceivedMessage> inbox_{64};
    Lease lease_;
    grpc::ClientContext context_;
    std::unique_ptr<grpc::ClientReaderWriter<v1::PrefillCommand, v1::PrefillEvent>> stream_;
  };

  // Everything a request gives, acknowledging each message.
  Received receive(const v1::StartPrefill& start) {
    Call call(*this, start);
    Received received;
    const auto accepted = call.event();
    if (accepted && accepted->has_accepted()) {
      for (uint32_t i = 0; i < accepted->accepted().messages(); ++i) {
        auto message = call.message();
        if (!message || !message->verify_payload().ok()) break;
        const MessageHeader header = message->header();
        const std::pair<int, int> place{header.first_layer, static_cast<int>(header.first_token)};
        received.payloads[place].assign(message->payload().begin(), message->payload().end());
        received.order.push_back(place);
        message.reset();  // its slot is free before the sender may use it again
        call.acknowledge(header.sequence);
      }
    }
    Received rest = call.end();
    received.status = rest.status;
    if (accepted) received.events.push_back(*accepted);
    received.events.insert(received.events.end(), rest.events.begin(), rest.events.end());
    return received;
  }

  v1::PrefillService::Stub& stub() { return *stub_; }
  Transport& transport() { return *transport_; }

 private:
  std::unique_ptr<v1::PrefillService::Stub> stub_;
  std::unique_ptr<Transport> transport_;
  uint64_t last_request_ = 0;
};

}  // namespace scd::testing
