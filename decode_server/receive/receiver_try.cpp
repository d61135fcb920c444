// One try of a transfer, from the choice of a prefill server to its last event.
#include <openssl/rand.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "common/base/check.h"
#include "common/codec/registry.h"
#include "common/kv/kv_cache.h"
#include "common/log/log.h"
#include "common/rpc/status.h"
#include "decode_server/receive/receiver.h"

namespace scd {
namespace {

constexpr double kBytesOfGigabit = 1e9 / 8;
// Of what a prefill server says.
constexpr int kMostSpans = 1 << 14;
constexpr size_t kLongestLanes = 256;  // bytes
constexpr size_t kLongestReason = 1024;

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

// By their beginning, those that lie between the request and now; of more than there can be, none.
std::vector<TransferSpan> spans_of(const v1::PrefillFinished& report, const RemoteClock& clock,
                                   ServingClock::duration since_asked) {
  if (report.spans_size() > kMostSpans) return {};
  const int64_t latest = std::chrono::ceil<std::chrono::microseconds>(since_asked).count();
  std::vector<TransferSpan> spans;
  for (const v1::Span& span : report.spans()) {
    if (span.start_us() < 0 || span.start_us() > span.end_us() || span.end_us() > latest) continue;
    spans.push_back({part_of(span.part()), clock.place(std::chrono::microseconds(span.start_us())),
                     clock.place(std::chrono::microseconds(span.end_us()))});
  }
  std::ranges::sort(spans, {}, &TransferSpan::begin);
  return spans;
}

// Not in the middle of a character.
std::string shortened(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// What the prefill server announced must be possible at all before anything is laid out by it.
Result<Done> check_accepted(const v1::PrefillAccepted& accepted, const TransferWish& wish, const Decoder& decoder,
                            int32_t layers) {
  auto refuse = [](const std::string& what) { return Failure{ErrorCode::kDataLoss, "it announced " + what}; };
  const int64_t handover = accepted.handover_tokens();
  if (handover == 0 || handover > wish.handover_tokens || handover < wish.held_tokens) {
    return refuse("a hand-over at token " + std::to_string(handover));
  }
  if (accepted.chunk_tokens() == 0 || accepted.chunk_tokens() % kPageTokens != 0) {
    return refuse("chunks of " + std::to_string(accepted.chunk_tokens()) + " tokens, where a positive multiple of " +
                  std::to_string(kPageTokens) + " is right");
  }
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

Failure said_of(const EndpointPool::Peer& peer, const Failure& failure) {
  return {failure.code, "prefill server " + peer.address + ": " + shortened(failure.message, kLongestReason)};
}

bool says_of_its_health(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kDataLoss || code == ErrorCode::kDeadlineExceeded ||
         code == ErrorCode::kInternal || code == ErrorCode::kUnknown;
}

// One for each chunk and each unit of layers.
int64_t messages_of(const TransferPlan& plan) {
  if (plan.first_token == plan.handover_tokens) return 0;
  const int64_t chunks = (plan.handover_tokens - 1) / plan.chunk_tokens - plan.first_token / plan.chunk_tokens + 1;
  return chunks * std::ssize(plan.layers.units);
}

std::string reason_of(const FirstTokenForecast& forecast) {
  char text[128];
  std::snprintf(text, sizeof text,
                "computing here was predicted to take %.4g ms to the first token, a hand-over %.4g ms",
                1e3 * forecast.local_seconds, 1e3 * forecast.handover_seconds);
  return text;
}

}  // namespace

void Receiver::ask_info(const EndpointPool::Peer& peer, TransferKey key) {
  const uint64_t number = next_info_call_++;
  InfoCall& call = *info_calls_.emplace(number, std::make_unique<InfoCall>()).first->second;
  call.context.set_deadline(std::chrono::system_clock::now() + args_.config.prefill.silence_timeout);
  // The peer is the inbox's before anybody lets go of its channel (common/rpc/channel.h).
  peer.stub->async()->GetProducerInfo(
      &call.context, &call.request, &call.response,
      [this, number, own = peer, key, &call](const grpc::Status& status) mutable {
        using Info = Result<v1::GetProducerInfoResponse>;
        inbox_.push(
            InfoArrived{number, std::move(own), key, status.ok() ? Info(call.response) : Info(to_failure(status))});
      });
}

std::optional<EndpointPool::Peer> Receiver::acquire(Transfer& transfer) {
  if (transfer.tried.size() >= kMostTries) return std::nullopt;
  std::set<PeerId> others = unsuited(transfer);
  others.insert(transfer.tried.begin(), transfer.tried.end());
  auto peer = endpoints_.acquire(
      {.tokens = transfer.wish.handover_tokens, .blocks = transfer.blocks, .tried = std::move(others)});
  if (!peer) return std::nullopt;
  transfer.tried.insert(peer->id());
  args_.metrics.peer_choices.of({peer->address, to_string(peer->choice.reason)})->add();
  return peer;
}

// While an artifact is rolled out, some prefill servers have its encoder and others have not yet.
std::set<PeerId> Receiver::unsuited(Transfer& transfer) {
  std::set<PeerId> unsuited = transfer.passed_over;
  for (const EndpointPool::Known& known : endpoints_.known()) {
    const auto suited =
        check_suited(transfer.consumer(), transfer.job->request, transfer.wish.handover_tokens, *known.info);
    if (suited) continue;
    unsuited.insert(known.peer.id());
    transfer.unsuited = said_of(known.peer, suited.failure());
    if (endpoints_.info_is_old(known.peer)) ask_info(known.peer, {});
  }
  return unsuited;
}

// As if it had never been asked.
void Receiver::pass_over(Transfer& transfer, Try& which, const Failure& why) {
  const PeerId peer = which.peer->id();
  transfer.unsuited = said_of(*which.peer, why);
  transfer.tried.erase(peer);
  transfer.passed_over.insert(peer);
  if (!transfer.leads(which)) return drop_hedge(transfer);
  if (promote_hedge(transfer)) return;
  close(transfer);
  if (auto next = acquire(transfer)) return begin(transfer, std::move(*next));
  fail(transfer, transfer.lead, *transfer.unsuited);
}

void Receiver::begin(Transfer& transfer, EndpointPool::Peer peer) {
  transfer.lead = {};
  transfer.lead.generation = ++transfer.generation;
  transfer.lead.peer = std::move(peer);
  transfer.hedged = false;
  transfer.race = args_.config.prefill.hedge_after.count() > 0 ? std::make_shared<Race>() : nullptr;
  if (transfer.tried.size() > 1) args_.compute.transfer_restarted(transfer.key(transfer.lead));
  ask(transfer, transfer.lead);
}

void Receiver::ask(Transfer& transfer, Try& which) {
  which.asked_at = ServingClock::now();
  if (endpoints_.info(*which.peer) != nullptr) return shake_hands(transfer, which);
  ask_info(*which.peer, transfer.key(which));
}

void Receiver::shake_hands(Transfer& transfer, Try& which) {
  which.info = endpoints_.info(*which.peer);
  if (which.info == nullptr) return ask_info(*which.peer, transfer.key(which));
  const auto suited =
      check_suited(transfer.consumer(), transfer.job->request, transfer.wish.handover_tokens, *which.info);
  if (!suited) return pass_over(transfer, which, suited.failure());
  started_.fetch_add(1, std::memory_order_relaxed);
  choose_codec(transfer, which);
  if (!which.decision.codec) return fail(transfer, which, check_same_model(transfer.consumer(), *which.info).failure());
  auto decoder = decoder_for(transfer, which);
  if (!decoder) return fail(transfer, which, decoder.failure(), Side::kOurs);
  which.decoder = std::move(decoder).value();
  if (!stays_here(transfer)) lease_slots(transfer, which);
}

// One for all transfers of a codec from a producer to a model.
Result<std::shared_ptr<const Decoder>> Receiver::decoder_for(const Transfer& transfer, const Try& which) {
  constexpr size_t kMostDecoders = 16;
  const v1::GetProducerInfoResponse& producer = *which.info;
  const bool exact = transfer.job->request.mode == TransferMode::kExact;
  std::string key = std::string(to_string(which.codec().id)) + (exact ? " exact " : " ") + producer.precision();
  for (const uint32_t number : {producer.layers(), producer.kv_heads(), producer.head_dim(), producer.hidden_size()}) {
    key += " " + std::to_string(number);
  }
  key += " " + producer.fingerprint().SerializeAsString();
  auto& decoders = transfer.model().decoders;
  const auto found = decoders.find(key);
  if (found != decoders.end()) return found->second;
  auto made = make_transfer_decoder(transfer.consumer(), which.codec().id, exact, producer);
  if (!made) return made;
  if (decoders.size() >= kMostDecoders) decoders.clear();
  decoders.emplace(std::move(key), made.value());
  return made;
}

void Receiver::choose_codec(const Transfer& transfer, Try& which) {
  const CompletionRequest& request = transfer.job->request;
  const v1::GetProducerInfoResponse& producer = *which.info;
  which.decision =
      transfer.model().codecs.choose({.mode = request.mode,
                                      .codec = request.codec,
                                      .level_open = request.level_open,
                                      .form_open = request.form_open,
                                      .same_model = check_same_model(transfer.consumer(), producer).ok(),
                                      .artifact_fits = artifact_fits(transfer.consumer(), producer),
                                      .tokens = transfer.wish.handover_tokens - transfer.wish.held_tokens,
                                      .declared_bytes_per_second = producer.bandwidth_gbps() * kBytesOfGigabit,
                                      .endpoint = which.peer->address});
  if (!which.decision.changed) return;
  log_info("codec_chosen", {{"endpoint", which.peer->address},
                            {"codec", to_string(which.codec().id)},
                            {"level", which.codec().rank.level},
                            {"packed", which.codec().rank.packed},
                            {"reason", which.decision.reason}});
}

// Conditional disaggregation: before the first prefill server is asked, of requests that leave the way to this server.
bool Receiver::stays_here(Transfer& transfer) {
  const TransferMode mode = transfer.job->request.mode;
  const bool open = mode == TransferMode::kAuto || mode == TransferMode::kExact;
  if (!open || args_.config.prefill.local == LocalPrefill::kOff || transfer.tried.size() > 1) return false;
  const auto tokens = std::ssize(transfer.job->request.prompt);
  const PeerChoice& choice = transfer.lead.peer->choice;
  transfer.forecast =
      args_.forecast.predict({.endpoint = transfer.lead.peer->address,
                              .queued_tokens = choice.tokens_before,
                              .fresh_tokens = transfer.wish.handover_tokens - choice.known_tokens,
                              .handover_tokens = transfer.wish.handover_tokens - transfer.wish.held_tokens,
                              .local_tokens = tokens - transfer.wish.held_tokens,
                              .transfer_seconds_per_token = transfer.lead.decision.predicted_seconds_per_token},
                             ServingClock::now());
  if (transfer.forecast && tokens > args_.config.fallback.local_prefill_max_tokens) transfer.forecast->local = false;
  if (!transfer.forecast || !transfer.forecast->local) return false;
  const TransferKey key = transfer.key(transfer.lead);
  LocalChoice local{.forecast = *transfer.forecast, .reason = reason_of(*transfer.forecast)};
  log_debug("prefill_stays_here", {{"request", key.request_id}, {"reason", local.reason}});
  args_.metrics.local_prefills_chosen.add();
  args_.forecast.add_backlog(tokens - transfer.wish.held_tokens);
  close(transfer);
  transfers_.erase(key.request_id);
  args_.compute.transfer_declined(key, std::move(local));
  return true;
}

// As many as a request may have while there are plenty, as what waits for credit is not read; later ones get less.
size_t Receiver::slots_to_lease() const {
  const auto most = static_cast<size_t>(args_.config.prefill.credit_messages);
  const auto fewest = static_cast<size_t>(args_.config.prefill.fewest_credit_messages());
  return std::clamp(args_.transport.counters().staging.slots_left / 4, fewest, most);
}

void Receiver::lease_slots(Transfer& transfer, Try& which) {
  // The hedge is ahead of a lead that took so long to say what it is, and slots go to ever later tries.
  if (transfer.leads(which) && transfer.hedge && transfer.hedge->activity != nullptr && promote_hedge(transfer)) return;
  const TransferKey key = transfer.key(which);
  which.token = random_token();
  auto activity = std::make_shared<Activity>(slots_to_lease());
  auto lease = args_.transport.open_lease({.key = key,
                                           .token = which.token,
                                           .slots = activity->credit,
                                           .beside_earlier = !transfer.leads(which),
                                           .on_message =
                                               [this, key, activity, race = transfer.race](ReceivedMessage message) {
                                                 activity->touch();
                                                 activity->arrived.fetch_add(1, std::memory_order_relaxed);
                                                 if (race != nullptr && !enters(*race, key.generation)) return;
                                                 args_.compute.message_arrived(key, std::move(message));
                                               },
                                           .on_failure =
                                               [this, key](const Failure& failure) {
                                                 // The transport's thread may not wait; when there is no room the
                                                 // silence is noticed instead.
                                                 (void)inbox_.try_push(Failed{key, failure});
                                               }});
  if (!lease && lease.failure().code == ErrorCode::kResourceExhausted) {
    if (!transfer.leads(which)) return drop_hedge(transfer);
    if (which.waits_for_slots_since) return;
    which.waits_for_slots_since = ServingClock::now();
    waiting_.push_back(key);
    return;
  }
  if (which.waits_for_slots_since) {
    which.asked_at = ServingClock::now();
    transfer.job->timeline.add(TransferPart::kQueue, *which.waits_for_slots_since, *which.asked_at);
    which.waits_for_slots_since.reset();
  }
  if (!lease) return fail(transfer, which, lease.failure(), Side::kOurs);
  which.lease = std::move(lease).value();
  which.activity = std::move(activity);
  {
    std::scoped_lock lock(streams_mutex_);
    activities_.emplace(key, which.activity);
  }
  open_stream(transfer, which);
}

void Receiver::open_stream(Transfer& transfer, Try& which) {
  const TransferKey key = transfer.key(which);
  PrefillStream::Callbacks callbacks;
  callbacks.on_event = [this, key, activity = which.activity, asked_at = ServingClock::now()](
                           const v1::PrefillEvent& event, ServingClock::time_point received_at) {
    activity->touch();
    if (!event.has_chunk_sent()) inbox_.push(EventArrived{key, event, asked_at, received_at});
  };
  callbacks.on_end = [this, key](Result<Done> status) { inbox_.push(StreamEnded{key, std::move(status)}); };
  auto stream = PrefillStream::open(*which.peer->stub, transfer.job->deadline, start_command(transfer, which),
                                    std::move(callbacks));
  std::scoped_lock lock(streams_mutex_);
  streams_.emplace(key, std::move(stream));
}

v1::PrefillCommand Receiver::start_command(const Transfer& transfer, const Try& which) const {
  v1::PrefillCommand command;
  v1::StartPrefill& start = *command.mutable_start();
  const CodecChoice& codec = which.codec();
  const auto& prompt = transfer.job->request.prompt;
  start.set_request_id(transfer.job->id);
  start.set_generation(which.generation);
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
  const Sha256Digest& encoder = which.decoder->encoder_id();
  start.set_expected_encoder_id(encoder.data(), encoder.size());
  *start.mutable_expected_model() = which.info->fingerprint();
  start.set_transfer_token(which.token.data(), which.token.size());
  start.set_data_plane_address(args_.transport.address());
  start.set_slot_bytes(args_.transport.slot_bytes());
  start.set_credit_messages(static_cast<uint32_t>(which.activity->credit));
  start.set_cache_salt(transfer.job->request.cache_salt);
  return command;
}

void Receiver::accepted(Transfer& transfer, Try& which, const EventArrived& arrived) {
  const v1::PrefillAccepted& accepted = arrived.event.accepted();
  if (which.clock) return fail(transfer, which, {ErrorCode::kDataLoss, "it accepted the request twice"});
  const auto sound = check_accepted(accepted, transfer.wish, *which.decoder, transfer.consumer().model.layers);
  if (!sound) return fail(transfer, which, sound.failure());
  auto layers = which.decoder->plan(transfer.wish.first_layer);
  if (!layers) return fail(transfer, which, layers.failure(), Side::kOurs);
  which.clock.emplace(arrived.started_at, arrived.received_at);
  endpoints_.accepted(*which.peer, transfer.blocks, accepted.queued_tokens());
  TransferPlan plan{.endpoint = which.peer->address,
                    .codec = which.codec(),
                    .codec_reason = which.decision.reason,
                    .predicted_seconds_per_token = which.decision.predicted_seconds_per_token,
                    .encoder_id = which.decoder->encoder_id(),
                    .decoder = which.decoder,
                    .held_tokens = transfer.wish.held_tokens,
                    .first_token = accepted.first_token(),
                    .handover_tokens = accepted.handover_tokens(),
                    .chunk_tokens = accepted.chunk_tokens(),
                    .cached_tokens = std::min(accepted.cached_tokens(), accepted.handover_tokens()),
                    .layers = std::move(layers).value(),
                    .origin = origin_of(transfer.consumer(), which.codec(), *which.info),
                    .forecast = transfer.tried.size() == 1 ? transfer.forecast : std::nullopt};
  which.fresh_tokens = plan.handover_tokens - plan.cached_tokens;
  which.activity->messages.store(static_cast<uint64_t>(messages_of(plan)), std::memory_order_relaxed);
  log_debug("transfer_accepted", {{"request", transfer.job->id},
                                  {"endpoint", plan.endpoint},
                                  {"handover_tokens", plan.handover_tokens},
                                  {"cached_tokens", plan.cached_tokens}});
  if (!transfer.leads(which)) {
    which.untold = std::move(plan);
    return;
  }
  args_.compute.transfer_accepted(transfer.key(which), std::move(plan));
}

void Receiver::take_spans(const Transfer& transfer, const Try& which, std::span<const TransferSpan> spans) {
  for (const TransferSpan& span : spans) {
    if (span.part == TransferPart::kWire) {
      transfer.job->timeline.sent(which.generation, span.begin, span.end);
    } else {
      transfer.job->timeline.add(span.part, span.begin, span.end);
    }
  }
}

// How fast it computes, by the prompt's share of its steps; one that does not tell it is taken at its spans.
void Receiver::learn_rate(const Try& which, std::span<const TransferSpan> spans, uint64_t computed_us) {
  const auto waited = busy_time(spans, TransferPart::kPrefill);
  const auto waited_us = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(waited).count());
  const uint64_t own_us = computed_us == 0 ? waited_us : std::min(computed_us, waited_us);
  args_.forecast.computed_there(which.peer->address, which.fresh_tokens, std::chrono::microseconds(own_us));
}

void Receiver::finished(Transfer& transfer, Try& which, const v1::PrefillFinished& report) {
  if (which.finished) return;
  if (!which.clock) return fail(transfer, which, {ErrorCode::kDataLoss, "it finished what it had not accepted"});
  if (!transfer.leads(which) && !promote_hedge(transfer)) return;  // it was the other that sent
  Try& lead = transfer.lead;
  auto spans = spans_of(report, *lead.clock, ServingClock::now() - *lead.asked_at);
  take_spans(transfer, lead, spans);
  std::ranges::sort(spans, {}, &TransferSpan::begin);
  learn_rate(lead, spans, report.computed_us());
  if (std::ssize(spans) < report.spans_size()) {  // its codes are good all the same
    log_debug("spans_refused", {{"request", transfer.job->id},
                                {"endpoint", lead.peer->address},
                                {"count", report.spans_size() - std::ssize(spans)}});
  }
  lead.finished = true;
  endpoints_.succeeded(*lead.peer, shortened(report.lanes(), kLongestLanes));
  args_.compute.transfer_finished(transfer.key(lead));
}

// One that refuses a request, being full or another than this server took it for, is none the worse for it.
void Receiver::blame(const Transfer& transfer, const Try& which, const Failure& failure) {
  if (transfer.job->cancelled() || ServingClock::now() >= transfer.job->deadline) return;
  if (!says_of_its_health(failure.code)) return endpoints_.forget_info(*which.peer);
  if (endpoints_.failed(*which.peer, failure)) args_.metrics.peer_ejections.of({which.peer->address})->add();
}

void Receiver::count_failure(const Transfer& transfer, const Try& which, const Failure& named) {
  failed_.fetch_add(1, std::memory_order_relaxed);
  args_.metrics.transfer_failures.of({which.peer ? which.peer->address : "", std::string(to_string(named.code))})
      ->add();
  log_warning("transfer_failed", {{"request", transfer.job->id},
                                  {"generation", which.generation},
                                  {"code", to_string(named.code)},
                                  {"reason", named.message}});
}

void Receiver::fail(Transfer& transfer, Try& which, const Failure& failure, Side side) {
  Failure reason = which.peer ? said_of(*which.peer, failure) : failure;
  if (which.peer && side == Side::kTheirs) blame(transfer, which, failure);
  count_failure(transfer, which, reason);
  if (!transfer.leads(which)) return drop_hedge(transfer);
  if (promote_hedge(transfer)) return;
  close(transfer);
  if (args_.config.fallback.other_endpoint && reason.code != ErrorCode::kInvalidArgument) {
    if (auto peer = acquire(transfer)) {
      other_endpoints_.fetch_add(1, std::memory_order_relaxed);
      args_.metrics.count_fallback("other_endpoint", reason);
      return begin(transfer, std::move(*peer));
    }
  }
  // Nobody was asked yet where there is nobody to ask.
  const TransferKey key{transfer.job->id, std::max(which.generation, transfer.wish.tries_before)};
  transfers_.erase(key.request_id);
  args_.compute.transfer_failed(key, std::move(reason));
}

void Receiver::close(const Transfer& transfer, Try& which) {
  which.lease.close();
  if (which.activity != nullptr) {
    std::scoped_lock lock(streams_mutex_);
    activities_.erase(transfer.key(which));
  }
  which.activity.reset();
  which.waits_for_slots_since.reset();
  if (!which.finished) {
    if (const auto stream = stream_of(transfer.key(which))) stream->cancel();
  }
  if (which.peer) endpoints_.release(*which.peer);
  which.peer.reset();
}

void Receiver::close(Transfer& transfer) {
  close(transfer, transfer.lead);
  if (transfer.hedge) drop_hedge(transfer);
}

}  // namespace scd
