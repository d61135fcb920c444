#include "prefill_server/encode/encode_stage.h"

#include <utility>

#include "common/base/crc32c.h"

namespace scd {
namespace {

// The job's chunks that lie in a batch and are to be made.
std::vector<ChunkInWork> chunks_in(const PrefillJob& job, const TokenRange& batch) {
  std::vector<ChunkInWork> chunks;
  for (const TokenRange& tokens : job.plan.chunks) {
    const bool inside = tokens.first >= batch.first && tokens.end() <= batch.end();
    if (inside && tokens.end() > job.stored_tokens) chunks.push_back({.chunk = {tokens, {}}, .rank = job.rank()});
  }
  return chunks;
}

}  // namespace

EncodeStage::EncodeStage(CodeCache& cache, int32_t model_layers, OnCode on_code)
    : cache_(cache), model_layers_(model_layers), on_code_(std::move(on_code)) {}

void EncodeStage::encode(const Job& job, const ComputedLayer& state) {
  if (state.layer < job->request.first_layer) return;
  if (state.layer == job->request.first_layer) job->encoding = chunks_in(*job, state.tokens);
  for (ChunkInWork& work : job->encoding) {
    const auto started = PrefillClock::now();
    CodeUnit unit = encode_chunk(*job, state, work);
    job->spans.add({PrefillPart::kEncode, started, PrefillClock::now()});
    if (unit.payload.bytes.size() > job->request.slot_bytes) {
      job->fail({ErrorCode::kFailedPrecondition,
                 "layer " + std::to_string(state.layer) + " of " + std::to_string(unit.tokens.count) + " tokens is " +
                     std::to_string(unit.payload.bytes.size()) + " bytes, but the decode server's slots hold " +
                     std::to_string(job->request.slot_bytes) +
                     ": raise its transport.slot_bytes or lower codec.chunk_tokens here"});
      return;
    }
    work.chunk.units.push_back(unit);
    // Before the last code leaves: whoever has it may ask again at once, and finds the chunk stored.
    if (state.layer + 1 == model_layers_) store(*job, work);
    on_code_(job, std::move(unit));
  }
  if (state.layer + 1 == model_layers_) job->encoding.clear();
}

CodeUnit EncodeStage::encode_chunk(const PrefillJob& job, const ComputedLayer& state, const ChunkInWork& work) {
  const TokenRange& tokens = work.chunk.tokens;
  const int64_t width = state.kv.kv_heads * state.kv.head_dim;
  keys_.resize(static_cast<size_t>(tokens.count * width));
  values_.resize(keys_.size());
  const kernels::Matrix keys = kernels::matrix(keys_.data(), tokens.count, width);
  const kernels::Matrix values = kernels::matrix(values_.data(), tokens.count, width);
  kernels::read_kv(state.kv, {state.page_ids, 0, tokens.count, tokens.first}, keys, values);
  LayerChunk chunk{
      .layer = state.layer, .first_position = tokens.first, .keys = keys, .values = values, .attention_input = {}};
  if (state.attention_input.data != nullptr) {
    const int64_t row = tokens.first - state.tokens.first;
    chunk.attention_input = state.attention_input;
    chunk.attention_input.data = state.attention_input.row<float>(row);
    chunk.attention_input.rows = tokens.count;
  }
  ByteBuffer payload;
  job.encoder.encode(chunk, work.rank, payload);
  CodeUnit unit{.layer = state.layer,
                .tokens = tokens,
                .level = static_cast<uint8_t>(work.rank.level),
                .crc = crc32c(payload),
                .payload = {}};
  unit.payload = SharedBytes::from(std::move(payload));
  return unit;
}

void EncodeStage::store(const PrefillJob& job, ChunkInWork& work) {
  // Its name says the ranks asked for at the start.
  if (work.rank != job.request.codec.rank) return;
  const Sha256Digest& name = job.names.of(work.chunk.tokens.end());
  cache_.insert(name, std::make_shared<const StoredChunk>(std::move(work.chunk)));
}

}  // namespace scd
