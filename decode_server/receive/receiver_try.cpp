// One try of a transfer, from the choice of a prefill server to its last event.
#include <openssl/rand.h>

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/codec/registry.h"
#include "common/log/log.h"
#include "decode_server/receive/receiver.h"

namespace scd {
namespace {

constexpr double kBytesOfGigabit = 1e9 / 8;

TransferToken random_token() {
  TransferToken token;
  SCD_CHECK(RAND_bytes(token.data(), static_cast<int>(token.size())) == 1, "no random bytes to be had");
  return token;
}

TransferPart part_of(v1::Part part) {
  switch (part) {
    case v1::PART_PREFILL: return TransferPart::kPrefill;
    case v1::PART_ENCODE: return TransferPart::kEncode;
    case v1::PART_WIRE: return TransferPart::kWire;
    default: return TransferPart::kQueue;
  }
}

// What the prefill server announced must be possible at all before anything is laid out by it.
Result<Done> check_accepted(const v1::PrefillAccepted& accepted, const TransferWish& wish, const Decoder& decoder,
                            int32_t layers) {
  auto refuse = [](const std::string& what) { return Failure{ErrorCode::kDataLoss, "it announced " + what}; };
  const int64_t handover = accepted.handover_tokens();
  if (handover == 0 || handover > wish.handover_tokens || handover < wish.held_tokens) {
    return refuse("a hand-over at token " + std::to_string(handover));
  }
  if (accepted.chunk_tokens() == 0) return refuse("chunks of no token");
  // Nothing is sent where the hand-over ends within the skipped tokens, or with those that are here.
  const int64_t held_chunks = wish.held_tokens / accepted.chunk_tokens() * accepted.chunk_tokens();
  const int64_t first_token =
      wish.held_tokens == handover ? handover : std::min(std::max(wish.skip_tokens, held_chunks), handover);
  if (accepted.first_token() != first_token) {
    return refuse("codes from token " + std::to_string(accepted.first_token()));
  }
  if (accepted.layers() != static_cast<uint32_t>(layers)) {
    return Failure{ErrorCode::kFailedPrecondition,
                   "layers: producer " + std::to_string(accepted.layers()) + ", consumer " + std::to_string(layers)};
  }
  const Sha256Digest& expected = decoder.encoder_id();
  const std::string& given = accepted.encoder_id();
  if (given.size() != expected.size() || !std::equal(expected.begin(), expected.end(), given.begin(),
                                                     [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
    return Failure{ErrorCode::kFailedPrecondition, "its encoder is not the one this server's decoder was made for"};
  }
  return Done{};
}

}  // namespace

void Receiver::begin_try(Transfer& transfer) {
  ++transfer.generation;
  transfer.finished = false;
  transfer.clock.reset();
  if (!transfer.tried.empty()) args_.compute.transfer_restarted(transfer.key());
  started_.fetch_add(1, std::memory_order_relaxed);
  transfer.endpoint = endpoints_.acquire(transfer.tried);
  SCD_CHECK(transfer.endpoint.has_value(), "a transfer without an endpoint to ask");
  transfer.tried.insert(*transfer.endpoint);
  if (endpoints_.info(*transfer.endpoint) != nullptr) return shake_hands(transfer);
  ask_info(*transfer.endpoint, transfer.key());
}

void Receiver::shake_hands(Transfer& transfer) {
  transfer.info = endpoints_.info(*transfer.endpoint);
  if (transfer.info == nullptr) return ask_info(*transfer.endpoint, transfer.key());
  choose_codec(transfer);
  if (!transfer.decision.codec)
    return fail_try(transfer, check_same_model(transfer.consumer(), *transfer.info).failure());
  auto decoder = decoder_for(transfer);
  if (!decoder) return fail_try(transfer, decoder.failure());
  transfer.decoder = std::move(decoder).value();
  lease_slots(transfer);
}

// One for all transfers of a codec from a producer to a model.
Result<std::shared_ptr<const Decoder>> Receiver::decoder_for(const Transfer& transfer) {
  constexpr size_t kMostDecoders = 16;
  const v1::GetProducerInfoResponse& producer = *transfer.info;
  const bool exact = transfer.job->request.mode == TransferMode::kExact;
  std::string key = std::string(to_string(transfer.codec().id)) + (exact ? " exact " : " ") + producer.precision();
  for (const uint32_t number : {producer.layers(), producer.kv_heads(), producer.head_dim(), producer.hidden_size()}) {
    key += " " + std::to_string(number);
  }
  key += " " + producer.fingerprint().SerializeAsString();
  auto& decoders = transfer.job->model->decoders;
  const auto found = decoders.find(key);
  if (found != decoders.end()) return found->second;
  auto made = make_transfer_decoder(transfer.consumer(), transfer.codec().id, exact, producer);
  if (!made) return made;
  if (decoders.size() >= kMostDecoders) decoders.clear();
  decoders.emplace(std::move(key), made.value());
  return made;
}

void Receiver::choose_codec(Transfer& transfer) {
  const CompletionRequest& request = transfer.job->request;
  const v1::GetProducerInfoResponse& producer = *transfer.info;
  transfer.decision =
      transfer.job->model->codecs.choose({.mode = request.mode,
                                          .codec = request.codec,
                                          .level_open = request.level_open,
                                          .form_open = request.form_open,
                                          .same_model = check_same_model(transfer.consumer(), producer).ok(),
                                          .artifact_fits = artifact_fits(transfer.consumer(), producer),
                                          .tokens = transfer.wish.handover_tokens - transfer.wish.held_tokens,
                                          .declared_bytes_per_second = producer.bandwidth_gbps() * kBytesOfGigabit});
  if (!transfer.decision.changed) return;
  log_info("codec_chosen", {{"endpoint", endpoints_.address(*transfer.endpoint)},
                            {"codec", to_string(transfer.codec().id)},
                            {"level", transfer.codec().rank.level},
                            {"packed", transfer.codec().rank.packed},
                            {"reason", transfer.decision.reason}});
}

void Receiver::lease_slots(Transfer& transfer) {
  const TransferKey key = transfer.key();
  transfer.token = random_token();
  auto activity = std::make_shared<Activity>();
  activity->touch();
  auto lease = args_.transport.open_lease({.key = key,
                                           .token = transfer.token,
                                           .slots = static_cast<size_t>(args_.config.prefill.credit_messages),
                                           .on_message =
                                               [this, key, activity](ReceivedMessage message) {
                                                 activity->touch();
                                                 args_.compute.message_arrived(key, std::move(message));
                                               },
                                           .on_failure =
                                               [this, key](const Failure& failure) {
                                                 // The transport's thread may not wait; when there is no room the
                                                 // silence is noticed instead.
                                                 (void)inbox_.try_push(Failed{key, failure});
                                               }});
  if (!lease && lease.failure().code == ErrorCode::kResourceExhausted) {
    if (transfer.waits_for_slots_since) return;
    transfer.waits_for_slots_since = ServingClock::now();
    waiting_.push_back(key.request_id);
    return;
  }
  if (transfer.waits_for_slots_since) {
    transfer.job->timeline.add(TransferPart::kQueue, *transfer.waits_for_slots_since, ServingClock::now());
    transfer.waits_for_slots_since.reset();
  }
  if (!lease) return fail_try(transfer, lease.failure());
  transfer.lease = std::move(lease).value();
  transfer.activity = std::move(activity);
  open_stream(transfer);
}

void Receiver::open_stream(Transfer& transfer) {
  const TransferKey key = transfer.key();
  PrefillStream::Callbacks callbacks;
  auto started_at = std::make_shared<ServingClock::time_point>(ServingClock::now());
  callbacks.on_event = [this, key, activity = transfer.activity, started_at](const v1::PrefillEvent& event,
                                                                             ServingClock::time_point received_at) {
    activity->touch();
    if (!event.has_chunk_sent()) inbox_.push(EventArrived{key, event, *started_at, received_at});
  };
  callbacks.on_end = [this, key](Result<Done> status) { inbox_.push(StreamEnded{key, std::move(status)}); };
  auto stream = PrefillStream::open(endpoints_.stub(*transfer.endpoint), transfer.job->deadline,
                                    start_command(transfer), std::move(callbacks));
  std::scoped_lock lock(streams_mutex_);
  streams_.emplace(key, std::move(stream));
}

v1::PrefillCommand Receiver::start_command(const Transfer& transfer) const {
  v1::PrefillCommand command;
  v1::StartPrefill& start = *command.mutable_start();
  const CodecChoice& codec = transfer.codec();
  const auto& prompt = transfer.job->request.prompt;
  start.set_request_id(transfer.job->id);
  start.set_generation(transfer.generation);
  start.mutable_token_ids()->Add(prompt.begin(), prompt.begin() + transfer.wish.handover_tokens);
  start.set_handover_tokens(static_cast<uint32_t>(transfer.wish.handover_tokens));
  start.set_first_layer(static_cast<uint32_t>(transfer.wish.first_layer));
  start.set_held_tokens(static_cast<uint32_t>(transfer.wish.held_tokens));
  start.set_skip_tokens(static_cast<uint32_t>(transfer.wish.skip_tokens));
  start.mutable_codec()->set_codec(static_cast<v1::Codec>(codec.id));
  start.mutable_codec()->set_level(static_cast<uint32_t>(codec.rank.level));
  start.mutable_codec()->set_form(codec.rank.packed ? v1::CODE_FORM_PACKED : v1::CODE_FORM_UNSPECIFIED);
  start.mutable_codec()->mutable_rank()->set_key(static_cast<uint32_t>(codec.rank.key));
  start.mutable_codec()->mutable_rank()->set_value(static_cast<uint32_t>(codec.rank.value));
  start.mutable_codec()->mutable_rank()->set_hidden(static_cast<uint32_t>(codec.rank.hidden));
  const Sha256Digest& encoder = transfer.decoder->encoder_id();
  start.set_expected_encoder_id(encoder.data(), encoder.size());
  *start.mutable_expected_model() = transfer.info->fingerprint();
  start.set_transfer_token(transfer.token.data(), transfer.token.size());
  start.set_data_plane_address(args_.transport.address());
  start.set_slot_bytes(args_.transport.slot_bytes());
  start.set_credit_messages(static_cast<uint32_t>(args_.config.prefill.credit_messages));
  start.set_cache_salt(transfer.job->request.cache_salt);
  return command;
}

void Receiver::accepted(Transfer& transfer, const EventArrived& arrived) {
  const v1::PrefillAccepted& accepted = arrived.event.accepted();
  if (transfer.clock) return fail_try(transfer, {ErrorCode::kDataLoss, "it accepted the request twice"});
  const auto sound = check_accepted(accepted, transfer.wish, *transfer.decoder, transfer.consumer().model.layers);
  if (!sound) return fail_try(transfer, sound.failure());
  auto layers = transfer.decoder->plan(transfer.wish.first_layer);
  if (!layers) return fail_try(transfer, layers.failure());
  transfer.clock.emplace(arrived.started_at, arrived.received_at);
  TransferPlan plan{.endpoint = endpoints_.address(*transfer.endpoint),
                    .codec = transfer.codec(),
                    .codec_reason = transfer.decision.reason,
                    .predicted_seconds_per_token = transfer.decision.predicted_seconds_per_token,
                    .encoder_id = transfer.decoder->encoder_id(),
                    .decoder = transfer.decoder,
                    .held_tokens = transfer.wish.held_tokens,
                    .first_token = accepted.first_token(),
                    .handover_tokens = accepted.handover_tokens(),
                    .chunk_tokens = accepted.chunk_tokens(),
                    .cached_tokens = std::min(accepted.cached_tokens(), accepted.handover_tokens()),
                    .layers = std::move(layers).value(),
                    .origin = origin_of(transfer.consumer(), transfer.codec(), *transfer.info)};
  log_debug("transfer_accepted", {{"request", transfer.job->id},
                                  {"endpoint", plan.endpoint},
                                  {"handover_tokens", plan.handover_tokens},
                                  {"cached_tokens", plan.cached_tokens}});
  args_.compute.transfer_accepted(transfer.key(), std::move(plan));
}

void Receiver::finished(Transfer& transfer, const v1::PrefillFinished& report) {
  if (transfer.finished) return;
  if (!transfer.clock) return fail_try(transfer, {ErrorCode::kDataLoss, "it finished what it had not accepted"});
  for (const v1::Span& span : report.spans()) {
    transfer.job->timeline.add(part_of(span.part()), transfer.clock->place(std::chrono::microseconds(span.start_us())),
                               transfer.clock->place(std::chrono::microseconds(span.end_us())));
  }
  transfer.finished = true;
  endpoints_.succeeded(*transfer.endpoint, report.lanes());
  args_.compute.transfer_finished(transfer.key());
}

}  // namespace scd
