#include "prefill_server/ship/shipper.h"

#include <algorithm>
#include <utility>

#include "kernels/matrix.h"

namespace scd {
namespace {

// Payloads of plain numbers, not of codes: docs/wire_format.md, "dtype".
bool sends_numbers(CodecId codec) {
  return codec == CodecId::kRaw || codec == CodecId::kScd || codec == CodecId::kDroidSpeak ||
         codec == CodecId::kLoraDelta;
}

MessageHeader header_of(const PrefillJob& job, const CodeUnit& unit, uint32_t sequence) {
  MessageHeader header;
  header.flags = sequence + 1 == job.plan.messages() ? kFlagLastOfRequest : 0;
  header.request_id = job.request.id;
  header.generation = job.request.generation;
  header.token = job.request.transfer_token;
  std::copy_n(job.encoder.id().begin(), header.encoder_id.size(), header.encoder_id.begin());
  header.codec_id = static_cast<uint8_t>(job.request.codec.id);
  header.level = unit.level;
  header.dtype = sends_numbers(job.request.codec.id) ? static_cast<uint8_t>(kernels::DType::kBF16) : 0;
  header.first_layer = static_cast<uint16_t>(unit.layer);
  header.layer_count = static_cast<uint16_t>(unit.layers);
  header.sequence = sequence;
  header.first_token = static_cast<uint32_t>(unit.tokens.first);
  header.token_count = static_cast<uint32_t>(unit.tokens.count);
  header.payload_bytes = unit.payload.bytes.size();
  header.payload_crc = unit.crc;
  return header;
}

}  // namespace

void Shipper::open(const Job& job) { grant(job, job->request.credit_messages); }

void Shipper::add(const Job& job, std::vector<CodeUnit> units) {
  {
    std::scoped_lock lock(job->outbox.mutex);
    for (CodeUnit& unit : units) {
      job->outbox.unsent_bytes += unit.payload.bytes.size();
      job->outbox.waiting.push_back(std::move(unit));
    }
  }
  send_what_may_leave(job);
}

void Shipper::grant(const Job& job, uint32_t messages) {
  {
    Outbox& outbox = job->outbox;
    std::scoped_lock lock(outbox.mutex);
    const auto unacknowledged =
        static_cast<uint32_t>(std::count(outbox.acknowledged.begin(), outbox.acknowledged.end(), false));
    const uint32_t most = args_.max_credit_messages - std::min(args_.max_credit_messages, unacknowledged);
    outbox.credit = static_cast<uint32_t>(std::min<uint64_t>(uint64_t{outbox.credit} + messages, most));
  }
  send_what_may_leave(job);
}

Result<Done> Shipper::acknowledge(const Job& job, uint32_t sequence) {
  {
    Outbox& outbox = job->outbox;
    std::scoped_lock lock(outbox.mutex);
    if (sequence >= outbox.acknowledged.size() || outbox.acknowledged[sequence]) {
      return Failure{ErrorCode::kInvalidArgument,
                     "chunk_done names message " + std::to_string(sequence) + ", which is not under way"};
    }
    outbox.acknowledged[sequence] = true;
    ++outbox.credit;
  }
  send_what_may_leave(job);
  return Done{};
}

void Shipper::abandon(PrefillJob& job) {
  std::deque<CodeUnit> dropped;
  {
    std::scoped_lock lock(job.outbox.mutex);
    dropped.swap(job.outbox.waiting);
  }
  args_.transport.abandon(job.request.peer, job.key());
}

void Shipper::send_what_may_leave(const Job& job) {
  {
    std::scoped_lock lock(job->outbox.mutex);
    if (job->outbox.sending) return;  // that thread looks again before it stops
    job->outbox.sending = true;
  }
  while (std::optional<SendJob> message = next(job)) {
    const Result<Done> sent = args_.transport.send(std::move(*message));
    if (!sent) job->fail(sent.failure());
  }
}

// The next message that may leave; without one, this thread is no longer the sending one.
std::optional<SendJob> Shipper::next(const Job& job) {
  Outbox& outbox = job->outbox;
  std::scoped_lock lock(outbox.mutex);
  if (job->ended() || outbox.credit == 0 || outbox.waiting.empty()) {
    outbox.sending = false;
    return std::nullopt;
  }
  CodeUnit unit = std::move(outbox.waiting.front());
  outbox.waiting.pop_front();
  --outbox.credit;
  outbox.acknowledged.push_back(false);
  SendJob message{.peer = job->request.peer,
                  .header = header_of(*job, unit, outbox.sequence++),
                  .payload = unit.payload,
                  .deadline = job->request.deadline,
                  .on_sent = {}};
  message.on_sent = [this, job, unit = std::move(unit)](const Result<SendReport>& result) { left(job, unit, result); };
  return message;
}

std::string Shipper::lanes_to(const std::string& peer) const {
  for (PeerReport& report : args_.transport.peers()) {
    if (report.address == peer) return std::move(report.lanes);
  }
  return {};
}

void Shipper::left(const Job& job, const CodeUnit& unit, const Result<SendReport>& result) {
  args_.metrics.count_sent(job->request, unit, result);
  if (!result) {
    job->fail({result.failure().code,
               "sending codes to the decode server at " + job->request.peer + ": " + result.failure().message});
    return;
  }
  const SendReport& report = result.value();
  job->spans.add({PrefillPart::kWire, report.started_at, report.finished_at});
  const uint64_t bytes = unit.payload.bytes.size();
  bool chunk_left = false, all_left = false, has_room = false;
  uint64_t payload_bytes = 0;
  {
    Outbox& outbox = job->outbox;
    std::scoped_lock lock(outbox.mutex);
    has_room = outbox.unsent_bytes > args_.max_unsent_bytes && outbox.unsent_bytes - bytes <= args_.max_unsent_bytes;
    outbox.unsent_bytes -= bytes;
    payload_bytes = outbox.payload_bytes += bytes;
    all_left = ++outbox.left == job->plan.messages();
    chunk_left = ++outbox.chunk_left[unit.tokens.first] == job->plan.layers.units.size();
  }
  if (has_room) args_.on_room();
  if (all_left) {
    job->finish(payload_bytes, lanes_to(job->request.peer));
  } else if (chunk_left && !job->ended()) {
    job->listener().chunk_sent(unit.tokens);
  }
}

}  // namespace scd
