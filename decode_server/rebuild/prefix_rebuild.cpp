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
      arrived_(static_cast<size_t>(args_.plan.layers * chunks_)),
      chunks_ready_(static_cast<size_t>(args_.plan.layers)) {}

Result<Done> PrefixRebuild::apply(const ReceivedMessage& message) {
  const MessageHeader& header = message.header();
  if (auto placed = check_place(header); !placed) return placed;
  if (auto sound = message.verify_payload(); !sound) return sound;
  const PayloadPlace place{header.first_layer, header.first_token, header.token_count};
  if (auto decoded = args_.plan.decoder->decode(place, message.payload(), decoded_); !decoded) return decoded;
  write(place.layer, place.first_position);
  const auto layer = static_cast<size_t>(place.layer);
  arrived_[layer * static_cast<size_t>(chunks_) + static_cast<size_t>(chunk_index(place.first_position))] = true;
  ++chunks_ready_[layer];
  return Done{};
}

bool PrefixRebuild::layer_ready(int32_t layer) const {
  return layer < args_.plan.first_layer || chunks_ready_[static_cast<size_t>(layer)] == chunks_;
}

Result<Done> PrefixRebuild::check_place(const MessageHeader& header) const {
  const TransferPlan& plan = args_.plan;
  if (header.codec_id != static_cast<uint8_t>(plan.codec.id)) {
    return misplaced(header, "codec " + std::to_string(header.codec_id) + " was not asked for");
  }
  if (!std::equal(header.encoder_id.begin(), header.encoder_id.end(), plan.encoder_id.begin())) {
    return misplaced(header, "made by another encoder than the one announced");
  }
  if (header.layer_count != 1 || header.first_layer < plan.first_layer || header.first_layer >= plan.layers) {
    return misplaced(header, "expected one layer of [" + std::to_string(plan.first_layer) + ", " +
                                 std::to_string(plan.layers) + ")");
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
  if (arrived_[static_cast<size_t>(header.first_layer * chunks_ + chunk_index(first))]) {
    return misplaced(header, "arrived already");
  }
  return Done{};
}

void PrefixRebuild::write(int32_t layer, int64_t first_position) {
  const int64_t skipped = std::min(std::max<int64_t>(args_.native_tokens - first_position, 0), decoded_.tokens);
  const int64_t rows = decoded_.tokens - skipped;
  if (rows == 0) return;
  const int64_t first = first_position + skipped;
  auto rows_of = [&](const std::vector<float>& values) {
    const int64_t width = std::ssize(values) / decoded_.tokens;
    return kernels::matrix(values.data() + skipped * width, rows, width);
  };
  if (decoded_.is_attention_input) {
    const auto tokens =
        std::span(args_.job.request.prompt).subspan(static_cast<size_t>(first), static_cast<size_t>(rows));
    project_keys_values(args_.model, args_.cache, layer, {&args_.job.pages, first, tokens},
                        rows_of(decoded_.attention_input));
    return;
  }
  const kernels::SequenceRows place{
      .page_ids = args_.job.pages.page_ids(), .first_row = 0, .rows = rows, .first_position = first};
  kernels::write_kv(args_.cache.layer(layer), std::span(&place, 1), rows_of(decoded_.keys), rows_of(decoded_.values));
}

}  // namespace scd
