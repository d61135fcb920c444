// What the stages say to each other. A stage knows its neighbours by these interfaces only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/sha256.h"
#include "common/codec/codec.h"
#include "common/transport/staging.h"
#include "decode_server/job.h"
#include "decode_server/prefill_forecast.h"

namespace scd {

// One try of one request's transfer: request id and generation.
using TransferKey = LeaseKey;

// Prefill servers that are asked for one prompt, one after the other or two at once, before it is given up.
inline constexpr size_t kMostTries = 8;

// What the prefill server said it will send: one message for each chunk and each unit of layers.
struct TransferPlan {
  std::string endpoint;
  CodecChoice codec;
  std::string codec_reason;  // why it was chosen; empty: it was named
  std::optional<double> predicted_seconds_per_token{};
  Sha256Digest encoder_id{};
  // Shared: one decoder serves every transfer from its endpoint, also those that outlive the endpoint's entry.
  std::shared_ptr<const Decoder> decoder;
  int64_t held_tokens = 0;  // as wished for
  int64_t first_token = 0;
  int64_t handover_tokens = 0;  // codes cover [first_token, handover_tokens)
  int64_t chunk_tokens = 0;     // chunks end at its multiples and at handover_tokens
  int64_t cached_tokens = 0;
  LayerPlan layers;
  std::optional<PageOrigin> origin{};  // of what is rebuilt; nothing: not known so well that others may use it
  std::optional<FirstTokenForecast> forecast{};  // where computing the prompt here was the other choice
};

// No hand-over: computing the prompt here is sooner.
struct LocalChoice {
  FirstTokenForecast forecast;
  std::string reason;
};

// What the request stage wants of the prefill server.
struct TransferWish {
  int64_t handover_tokens = 0;  // a multiple of 16, > 0
  int64_t skip_tokens = 0;      // a multiple of 16
  int64_t held_tokens = 0;      // a multiple of 16: their keys and values are here
  int32_t first_layer = 0;      // layers before it are computed here
  bool predicts = false;        // the codec predicts from the residual stream of those layers
  uint32_t tries_before = 0;    // generations of earlier transfers of this request
};

// Requests in, transfers and answers out: the compute thread. Thread-safe; message_arrived and wake never block.
class ComputeStage {
 public:
  virtual ~ComputeStage() = default;
  // The job holds its pages.
  virtual void admit(std::shared_ptr<DecodeJob> job) = 0;
  // A job was cancelled: look soon.
  virtual void wake() = 0;

  virtual void transfer_accepted(TransferKey key, TransferPlan plan) = 0;
  virtual void message_arrived(TransferKey key, ReceivedMessage message) = 0;
  // An earlier try was given up and this one begins: messages of earlier ones are dropped.
  virtual void transfer_restarted(TransferKey key) = 0;
  // None is begun.
  virtual void transfer_declined(TransferKey key, LocalChoice choice) = 0;
  // Everything has left the prefill server and its spans are in the job's timeline.
  virtual void transfer_finished(TransferKey key) = 0;
  // No prefill server is left to ask.
  virtual void transfer_failed(TransferKey key, Failure failure) = 0;
};

// Asks prefill servers for codes. Thread-safe.
class TransferStage {
 public:
  virtual ~TransferStage() = default;
  virtual void start(std::shared_ptr<DecodeJob> job, TransferWish wish) = 0;
  // A message was rebuilt and its slot is free.
  virtual void chunk_done(TransferKey key, uint32_t sequence) = 0;
  // What arrived cannot be used: try elsewhere.
  virtual void reject(TransferKey key, Failure failure) = 0;
  // The request needs nothing more: frees the lease and the prefill server.
  virtual void end(uint64_t request_id) = 0;
};

// Who lets requests in. Thread-safe.
class AdmissionStage {
 public:
  virtual ~AdmissionStage() = default;
  // A running request ended and its pages are free.
  virtual void release() = 0;
  // A running request of this priority waits for pages: no request gets any but those of a higher one. Nothing: none
  // waits. The pages that made room are given up after the call.
  virtual void hold_back(std::optional<int32_t> priority) = 0;
};

}  // namespace scd
