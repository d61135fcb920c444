#include "decode_server/rebuild/prefix_rebuild.h"

#include <algorithm>
#include <string>
#include <utility>

namespace scd {
namespace {

Failure misplaced(const MessageHeader& header, const std::string& what) {
  return {ErrorCode::kDataLoss, "message " + std::to_string(header.sequence) + " (layer " +
                                    std::to_string(header.first_layer) + ", tokens from " +
                                    std::to_string(header.first_token) + "): " + what};
}

}  // namespace

PrefixRebuild::PrefixRebuild(Args args)
    : args_(std::move(args)),
      first_chunk_(args_.plan.first_token / args_.plan.chunk_tokens),
      chunks_(args_.plan.first_token == args_.plan.handover_tokens ? 0
                                                                   : chunk_index(args_.plan.handover_tokens - 1) + 1),
      arrived_(args_.plan.layers.units.size() * static_cast<size_t>(chunks_)),
      chunks_ready_(args_.plan.layers.units.size()),
      units_({.model = args_.model,
              .cache = args_.cache,
              .pages = args_.job.pages,
              .tokens = std::span(args_.job.request.prompt).first(static_cast<size_t>(args_.plan.handover_tokens)),
              .exact_tokens = args_.native_tokens,
              .plan = args_.plan.layers,
              .decoder = *args_.plan.decoder,
              .exact_layers = args_.exact_layers,
              .adapter = args_.adapter,
              .native_rows = args_.plan.decoder->reads_ahead() ? 0 : args_.native_rows}) {}  // its blocks are joined

bool PrefixRebuild::applicable(const ReceivedMessage& message) const {
  const MessageHeader& header = message.header();
  return check_place(header) ? units_.applicable(header.first_layer, header.first_token, header.token_count)
                             : !running();
}

std::vector<bool>::reference PrefixRebuild::arrived(const MessageHeader& header) {
  const size_t unit = args_.plan.layers.unit_at(header.first_layer);
  return arrived_[unit * static_cast<size_t>(chunks_) + static_cast<size_t>(chunk_index(header.first_token))];
}

Result<Done> PrefixRebuild::apply(const ReceivedMessage& message) {
  const MessageHeader& header = message.header();
  if (auto placed = check_place(header); !placed) return placed;
  if (auto sound = message.verify_payload(); !sound) return sound;
  auto applied = units_.apply(header.first_layer, header.first_token, header.token_count, message.payload());
  if (!applied) return applied;
  arrived(header) = true;
  ++chunks_ready_[args_.plan.layers.unit_at(header.first_layer)];
  return Done{};
}

Result<std::unique_ptr<PendingBlocks>> PrefixRebuild::begin_reading(std::span<const ReceivedMessage> messages) {
  std::vector<Payload> payloads;
  for (const ReceivedMessage& message : messages) {
    const MessageHeader& header = message.header();
    if (auto placed = check_place(header); !placed) return placed.failure();
    if (auto sound = message.verify_payload(); !sound) return sound.failure();
    payloads.push_back({{header.first_layer, header.first_token, header.token_count}, message.payload()});
    arrived(header) = true;
  }
  return args_.plan.decoder->begin_reading(payloads);
}

bool PrefixRebuild::applicable(const CodeBlock& block) const {
  return units_.applicable(block.place.layer, block.place.first_position, block.place.tokens);
}

void PrefixRebuild::apply(const CodeBlock& block) {
  units_.apply(block);
  const int64_t first = block.place.first_position, last = first + block.place.tokens - 1;
  chunks_ready_[args_.plan.layers.unit_at(block.place.layer)] += chunk_index(last) - chunk_index(first) + 1;
}

bool PrefixRebuild::layer_ready(int32_t layer) const {
  const LayerPlan& plan = args_.plan.layers;
  if (layer < plan.exact_layers) {
    return args_.exact_layers == nullptr || args_.exact_layers->done_tokens() >= args_.plan.handover_tokens;
  }
  size_t unit = 0;
  while (unit + 1 < plan.units.size() && plan.units[unit].end() <= layer) ++unit;
  return chunks_ready_[unit] == chunks_ && units_.span_done(unit, args_.plan.handover_tokens);
}

bool PrefixRebuild::complete() const {
  for (int32_t layer = 0; layer < args_.model.config().layers; ++layer) {
    if (!layer_ready(layer)) return false;
  }
  return true;
}

Result<Done> PrefixRebuild::check_place(const MessageHeader& header) const {
  const TransferPlan& plan = args_.plan;
  if (header.codec_id != static_cast<uint8_t>(plan.codec.id)) {
    return misplaced(header, "codec " + std::to_string(header.codec_id) + " was not asked for");
  }
  if (!std::equal(header.encoder_id.begin(), header.encoder_id.end(), plan.encoder_id.begin())) {
    return misplaced(header, "made by another encoder than the one announced");
  }
  const size_t unit = plan.layers.unit_at(header.first_layer);
  if (unit == plan.layers.units.size() || header.layer_count != plan.layers.units[unit].layers) {
    return misplaced(header, "no unit of " + std::to_string(header.layer_count) +
                                 " layers begins there; they are: " + to_string(plan.layers));
  }
  const int64_t first = header.first_token;
  if (first < plan.first_token || first >= plan.handover_tokens ||
      (first != plan.first_token && first % plan.chunk_tokens != 0)) {
    return misplaced(header, "no chunk begins there");
  }
  const int64_t end = std::min((first / plan.chunk_tokens + 1) * plan.chunk_tokens, plan.handover_tokens);
  if (header.token_count != end - first) {
    return misplaced(header,
                     std::to_string(header.token_count) + " tokens, the chunk has " + std::to_string(end - first));
  }
  if (arrived_[unit * static_cast<size_t>(chunks_) + static_cast<size_t>(chunk_index(first))]) {
    return misplaced(header, "arrived already");
  }
  return Done{};
}

}  // namespace scd
