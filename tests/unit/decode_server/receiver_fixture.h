// A receiver between a prefill server in miniature and a compute stage that remembers what it is told.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/threads/bounded_queue.h"
#include "decode_server/receive/receiver.h"
#include "tests/unit/decode_server/producer.h"
#include "tests/unit/decode_server/served_models.h"

namespace scd::testing {

inline constexpr std::chrono::seconds kPatience{10};

// Remembers what the receiver says.
class FakeCompute final : public ComputeStage {
 public:
  void admit(std::shared_ptr<DecodeJob>) override {}
  void wake() override {}
  void transfer_accepted(TransferKey key, TransferPlan) override { accepted.push(key); }
  void message_arrived(TransferKey, ReceivedMessage message) override { messages.push(std::move(message)); }
  void transfer_restarted(TransferKey) override {}
  void transfer_declined(TransferKey, LocalChoice choice) override { declined.push(std::move(choice)); }
  void transfer_finished(TransferKey key) override { finished.push(key); }
  void transfer_failed(TransferKey, Failure failure) override { failed.push(std::move(failure)); }

  BoundedQueue<TransferKey> accepted{16}, finished{16};
  BoundedQueue<ReceivedMessage> messages{16};
  BoundedQueue<Failure> failed{16};
  BoundedQueue<LocalChoice> declined{16};
};

class NoSink final : public CompletionSink {
 public:
  void on_prompt(const PromptInfo&) override {}
  void on_delta(CompletionDelta) override {}
  void on_end(CompletionEnd) override {}
  void on_failure(const Failure&) override {}
};

template <class T>
std::optional<T> next(BoundedQueue<T>& queue, std::chrono::milliseconds patience = kPatience) {
  return queue.pop_until(ServingClock::now() + patience);
}

// Waits until the decode server ends the call.
inline grpc::Status until_cancelled(Producer::Stream& stream) {
  v1::PrefillCommand command;
  while (stream.Read(&command)) {
  }
  return grpc::Status::CANCELLED;
}

inline v1::PrefillEvent failure_event(uint32_t code, const std::string& message) {
  v1::PrefillEvent event;
  event.mutable_failed()->set_code(code);
  event.mutable_failed()->set_message(message);
  return event;
}

class ReceiverTest : public ::testing::Test {
 protected:
  ReceiverTest() {
    consumer_.fingerprint = {.weights = "aaaa", .tokenizer = "bbbb", .rope = "{}"};
    consumer_.model = {.layers = 2, .kv_heads = 1, .head_dim = 4, .hidden = 8, .rope = {{1.0F, 0.1F}}};
    config_.prefill.credit_messages = 4;  // all the slots there are
  }

  // A prefill server with the consumer's own model.
  std::unique_ptr<Producer> make_producer(Producer::Script script,
                                          const std::function<void(v1::GetProducerInfoResponse&)>& change = {}) {
    v1::GetProducerInfoResponse info;
    info.mutable_fingerprint()->set_weights(consumer_.fingerprint.weights);
    info.mutable_fingerprint()->set_tokenizer(consumer_.fingerprint.tokenizer);
    info.mutable_fingerprint()->set_rope(consumer_.fingerprint.rope);
    info.set_layers(2);
    info.set_kv_heads(1);
    info.set_head_dim(4);
    info.set_hidden_size(8);
    info.set_chunk_tokens(16);
    info.set_bandwidth_gbps(1);
    if (change) change(info);
    return std::make_unique<Producer>(std::move(info), network_, std::move(script));
  }
  void start_receiver() {
    receiver_ = std::make_unique<Receiver>(Receiver::Args{config_, *transport_, compute_, forecast_, metrics_});
  }
  // And a receiver that knows it alone.
  void serve(Producer::Script script) {
    producer_ = make_producer(std::move(script));
    config_.prefill.endpoints = {producer_->address()};
    start_receiver();
  }
  std::shared_ptr<DecodeJob> job(TransferMode mode = TransferMode::kCodec, int64_t handover_tokens = 32) {
    auto job = std::make_shared<DecodeJob>(++last_id_, ServingClock::now(), std::make_shared<NoSink>());
    job->request.prompt.assign(static_cast<size_t>(handover_tokens) + 16, 3);
    job->model = served_model({config_, model_, tokenizer_, "tiny", 8}, prefixes_, consumer_);
    job->request.mode = mode;
    return job;
  }
  uint64_t start(TransferMode mode = TransferMode::kCodec, int64_t handover_tokens = 32) {
    receiver_->start(job(mode, handover_tokens),
                     {.handover_tokens = handover_tokens, .skip_tokens = 0, .first_layer = 0});
    return last_id_;
  }
  // What a request ends with when the prefill server accepts it and then says `event`.
  Failure failure_after(std::function<v1::PrefillEvent(const v1::StartPrefill&)> event) {
    serve([this, event = std::move(event)](const v1::StartPrefill& start, Producer::Stream& stream) {
      stream.Write(producer_->acceptance(start));
      stream.Write(event(start));
      return until_cancelled(stream);
    });
    start();
    return next(compute_.failed).value_or(Failure{ErrorCode::kUnknown, "nothing failed"});
  }

  DecodeConfig config_;
  ConsumerIdentity consumer_;
  ModelConfig model_;
  Tokenizer tokenizer_ = byte_tokenizer();
  PagePool pages_{8, kPageTokens};
  PrefixCache prefixes_{pages_, 8};
  LoopbackNetwork network_;
  std::unique_ptr<Transport> transport_ = make_loopback_transport(loopback_options(), network_);
  FakeCompute compute_;
  PrefillForecast forecast_;
  MetricsRegistry registry_;
  DecodeMetrics metrics_{registry_};
  std::unique_ptr<Producer> producer_;
  std::vector<std::unique_ptr<Producer>> producers_;
  std::unique_ptr<Receiver> receiver_;  // ends before those it calls
  uint64_t last_id_ = 0;
};

}  // namespace scd::testing
