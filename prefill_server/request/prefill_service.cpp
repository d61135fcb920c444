#include "prefill_server/request/prefill_service.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "prefill_server/request/event_writer.h"
#include "prefill_server/request/start.h"

namespace scd {
namespace {

// One hand-over. gRPC runs its reactions one read after the other; cancellation may come beside them.
class PrefillCall final : public PrefillReactor {
 public:
  PrefillCall(const PrefillService::Args& args, grpc::CallbackServerContext& context) : args_(args), context_(context) {
    StartRead(&command_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return closed();
    handle();
    StartRead(&command_);
  }
  void OnWriteDone(bool ok) override {
    if (writer_) writer_->written(ok);
  }
  void OnCancel() override { end({ErrorCode::kCancelled, "the decode server cancelled the call, or is gone"}); }
  void OnDone() override { delete this; }

 private:
  void handle() {
    if (command_.command_case() == v1::PrefillCommand::kStart) return start();
    const std::shared_ptr<PrefillJob> job = current();
    if (!started_) return refuse({ErrorCode::kInvalidArgument, "the first command must be start"});
    if (job == nullptr) return;  // refused or done; what still comes in is late
    switch (command_.command_case()) {
      case v1::PrefillCommand::kCredit: args_.handover.grant(job, command_.credit().messages()); break;
      case v1::PrefillCommand::kChunkDone:
        for (const uint32_t sequence : command_.chunk_done().sequence()) {
          if (job->ended()) break;
          args_.handover.acknowledge(job, sequence);
        }
        break;
      case v1::PrefillCommand::kSetLevel: set_level(*job); break;
      case v1::PrefillCommand::kAbandon:
        if (command_.abandon().generation() < job->request.generation) break;
        job->fail({ErrorCode::kCancelled, "the decode server abandoned the request"});
        break;
      case v1::PrefillCommand::kStart:
      case v1::PrefillCommand::COMMAND_NOT_SET:
        job->fail({ErrorCode::kInvalidArgument, "a command this server does not know"});
    }
  }

  void start() {
    if (started_) {
      if (const auto job = current()) job->fail({ErrorCode::kInvalidArgument, "start came twice"});
      return;
    }
    const auto received_at = PrefillClock::now();
    make_writer(received_at);
    Result<PrefillRequest> request = read_start(command_.start(), args_.producer, received_at);
    if (!request) return writer_->failed(request.failure());
    request.value().deadline =
        std::min({request.value().deadline, received_at + args_.request_timeout, rpc_deadline()});
    writer_->describe_plan(request.value().first_layer, args_.producer.chunk_tokens,
                           args_.handover.load().queued_tokens);
    const auto deadline = request.value().deadline;
    std::shared_ptr<PrefillJob> job = args_.handover.begin(std::move(request).value(), writer_);
    if (job == nullptr) return;
    watch(job, deadline);
    bool cancelled = false;
    {
      std::scoped_lock lock(mutex_);
      job_ = job;
      cancelled = cancelled_;
    }
    if (cancelled) job->fail({ErrorCode::kCancelled, "the decode server cancelled the call"});
  }

  void set_level(PrefillJob& job) {
    const v1::RankCaps& rank = command_.set_level().rank();
    const uint32_t level = command_.set_level().level();
    if (level >= static_cast<uint32_t>(job.encoder.levels()) ||
        std::max({rank.key(), rank.value(), rank.hidden()}) > (1U << 16)) {
      return job.fail({ErrorCode::kInvalidArgument, "set_level: a level or rank that does not exist"});
    }
    job.set_rank({static_cast<int32_t>(rank.key()), static_cast<int32_t>(rank.value()),
                  static_cast<int32_t>(rank.hidden()), static_cast<int32_t>(level), job.request.codec.rank.packed});
  }

  // The consumer writes nothing more.
  void closed() {
    if (!started_) return refuse({ErrorCode::kInvalidArgument, "the stream was closed without a start command"});
    end({ErrorCode::kCancelled, "the decode server closed the stream"});
  }

  void end(const Failure& failure) {
    std::shared_ptr<PrefillJob> job;
    {
      std::scoped_lock lock(mutex_);
      cancelled_ = true;
      job = job_;
    }
    if (job != nullptr) job->fail(failure);
  }

  void refuse(const Failure& failure) {
    if (writer_ == nullptr) make_writer(PrefillClock::now());
    writer_->failed(failure);
  }

  void make_writer(PrefillClock::time_point received_at) {
    started_ = true;
    writer_ = std::make_shared<EventWriter>(*this, received_at);
  }

  // At the deadline the job ends, whatever it waits for.
  void watch(const std::shared_ptr<PrefillJob>& job, PrefillClock::time_point deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::system_clock::duration>(deadline - PrefillClock::now());
    std::weak_ptr<PrefillJob> watched = job;
    alarm_.Set(std::chrono::system_clock::now() + left, [watched](bool expired) {
      const auto waiting = watched.lock();
      if (expired && waiting) waiting->fail({ErrorCode::kDeadlineExceeded, "the request's deadline has passed"});
    });
  }

  PrefillClock::time_point rpc_deadline() const {
    constexpr auto kFar = std::chrono::hours(24);
    const auto left = context_.deadline() - std::chrono::system_clock::now();
    return PrefillClock::now() + std::min<std::chrono::system_clock::duration>(left, kFar);
  }

  std::shared_ptr<PrefillJob> current() {
    std::scoped_lock lock(mutex_);
    return job_ != nullptr && !job_->ended() ? job_ : nullptr;
  }

  const PrefillService::Args args_;
  grpc::CallbackServerContext& context_;
  v1::PrefillCommand command_;
  bool started_ = false;                 // the reading reactions' own
  std::shared_ptr<EventWriter> writer_;  // shared with the job that tells it what happens
  grpc::Alarm alarm_;

  std::mutex mutex_;
  bool cancelled_ = false;
  std::shared_ptr<PrefillJob> job_;  // shared as PrefillJob says
};

}  // namespace

PrefillReactor* PrefillService::Prefill(grpc::CallbackServerContext* context) {
  return new PrefillCall(args_, *context);  // deletes itself when gRPC is done with it
}

grpc::ServerUnaryReactor* PrefillService::GetProducerInfo(grpc::CallbackServerContext* context,
                                                          const v1::GetProducerInfoRequest*,
                                                          v1::GetProducerInfoResponse* response) {
  const Producer& producer = args_.producer;
  const PrefillLoad load = args_.handover.load();
  response->set_version(SCD_VERSION);
  response->set_model(producer.name);
  response->mutable_fingerprint()->set_weights(producer.fingerprint.weights);
  response->mutable_fingerprint()->set_tokenizer(producer.fingerprint.tokenizer);
  response->mutable_fingerprint()->set_rope(producer.fingerprint.rope);
  response->set_layers(static_cast<uint32_t>(producer.layers));
  response->set_kv_heads(static_cast<uint32_t>(producer.kv_heads));
  response->set_head_dim(static_cast<uint32_t>(producer.head_dim));
  response->set_hidden_size(static_cast<uint32_t>(producer.hidden));
  response->set_vocabulary_size(static_cast<uint32_t>(producer.vocabulary));
  response->set_context_length(static_cast<uint32_t>(producer.context_tokens));
  response->set_precision(producer.precision);
  for (const auto& [id, encoder] : producer.encoders) {
    v1::OfferedCodec& offered = *response->add_codecs();
    offered.set_codec(static_cast<v1::Codec>(id));
    offered.set_encoder_id(encoder->id().data(), encoder->id().size());
  }
  response->set_chunk_tokens(static_cast<uint32_t>(producer.chunk_tokens));
  response->set_queued_requests(static_cast<uint32_t>(load.live_requests));
  response->set_queued_tokens(static_cast<uint64_t>(load.queued_tokens));
  response->set_queue_capacity(static_cast<uint32_t>(load.capacity));
  response->set_data_plane_address(producer.data_plane);
  response->set_code_cache_bytes(load.code_cache_bytes);
  response->set_draining(load.draining);
  response->set_bandwidth_gbps(producer.bandwidth_gbps);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace scd
