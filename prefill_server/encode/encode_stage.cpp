#include "prefill_server/encode/encode_stage.h"

#include <algorithm>
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

EncodeStage::EncodeStage(CodeCache& cache, OnCode on_code) : cache_(cache), on_code_(std::move(on_code)) {}

void EncodeStage::begin_batch(const Job& job, const TokenRange& tokens) {
  batch_ = tokens;
  residuals_.clear();
  job->encoding = chunks_in(*job, tokens);
}

void EncodeStage::keep_residual(const Job& job, const ResidualStream& residual) {
  DenseMatrix& kept = residuals_[residual.layer];
  kept = DenseMatrix(residual.rows.rows, residual.rows.columns);
  for (int64_t row = 0; row < kept.rows; ++row) {
    std::copy_n(residual.rows.row<float>(row), kept.columns, kept.view().row<float>(row));
  }
  const LayerPlan& plan = job->plan.layers;
  const size_t unit = plan.unit_at(residual.layer);
  if (unit < plan.units.size() && plan.units[unit].residual) encode_unit(job, unit, nullptr);
}

void EncodeStage::encode(const Job& job, const ComputedLayer& state) {
  const LayerPlan& plan = job->plan.layers;
  for (size_t unit = 0; unit < plan.units.size(); ++unit) {
    if (!plan.units[unit].residual && plan.units[unit].end() == state.layer + 1) encode_unit(job, unit, &state);
  }
}

void EncodeStage::encode_unit(const Job& job, size_t unit, const ComputedLayer* state) {
  const LayerPlan& plan = job->plan.layers;
  for (ChunkInWork& work : job->encoding) {
    const auto started = PrefillClock::now();
    CodeUnit code = encode_chunk(*job, unit, state, work);
    job->spans.add({PrefillPart::kEncode, started, PrefillClock::now()});
    if (code.payload.bytes.size() > job->request.slot_bytes) {
      job->fail({ErrorCode::kFailedPrecondition,
                 "layer " + std::to_string(code.layer) + " of " + std::to_string(code.tokens.count) + " tokens is " +
                     std::to_string(code.payload.bytes.size()) + " bytes, but the decode server's slots hold " +
                     std::to_string(job->request.slot_bytes) +
                     ": raise its transport.slot_bytes or lower codec.chunk_tokens here"});
      return;
    }
    work.chunk.units.push_back(code);
    // Before the last code leaves: whoever has it may ask again at once, and finds the chunk stored.
    if (unit + 1 == plan.units.size()) store(*job, work);
    on_code_(job, std::move(code));
  }
  if (unit + 1 == plan.units.size()) job->encoding.clear();
}

// Layers of the unit side by side.
void EncodeStage::read_keys_values(const CodedUnit& unit, const ComputedLayer& state, const TokenRange& tokens) {
  const int64_t width = state.cache.shape().kv_width();
  keys_ = DenseMatrix(tokens.count, width * unit.layers);
  values_ = DenseMatrix(tokens.count, width * unit.layers);
  const auto columns_of = [&](DenseMatrix& all, int32_t index) {
    return kernels::Matrix{all.values.data() + index * width, all.rows, width, all.columns};
  };
  for (int32_t index = 0; index < unit.layers; ++index) {
    kernels::read_kv(state.cache.layer(unit.first_layer + index), {state.page_ids, 0, tokens.count, tokens.first},
                     columns_of(keys_, index), columns_of(values_, index));
  }
}

kernels::ConstMatrix EncodeStage::residual_rows(int32_t layer, const TokenRange& tokens) const {
  const DenseMatrix& rows = residuals_.at(layer);
  return kernels::matrix(rows.view().row<float>(tokens.first - batch_.first), tokens.count, rows.columns);
}

// state: null for a residual stream.
CodeUnit EncodeStage::encode_chunk(const PrefillJob& job, size_t unit, const ComputedLayer* state,
                                   const ChunkInWork& work) {
  const TokenRange& tokens = work.chunk.tokens;
  const CodedUnit& coded = job.plan.layers.units[unit];
  LayerChunk chunk{.layer = coded.first_layer, .first_position = tokens.first};
  if (state == nullptr) {
    chunk.residual = residual_rows(coded.first_layer, tokens);
  } else {
    read_keys_values(coded, *state, tokens);
    chunk.keys = std::as_const(keys_).view();
    chunk.values = std::as_const(values_).view();
    if (state->attention_input.data != nullptr) {
      const kernels::ConstMatrix& input = state->attention_input;
      chunk.attention_input =
          kernels::matrix(input.row<float>(tokens.first - batch_.first), tokens.count, input.columns);
    }
  }
  const int32_t anchor = job.plan.layers.anchor_of(unit);
  if (anchor >= 0 && job.encoder.needs_residual(anchor)) chunk.anchor = residual_rows(anchor, tokens);
  ByteBuffer payload;
  job.encoder.encode(chunk, work.rank, payload);
  CodeUnit code{.layer = coded.first_layer,
                .layers = coded.layers,
                .tokens = tokens,
                .level = static_cast<uint8_t>(work.rank.level),
                .crc = crc32c(payload),
                .payload = {}};
  code.payload = SharedBytes::from(std::move(payload));
  return code;
}

void EncodeStage::store(const PrefillJob& job, ChunkInWork& work) {
  // Its name says the ranks asked for at the start.
  if (work.rank != job.request.codec.rank) return;
  const Sha256Digest& name = job.names.of(work.chunk.tokens.end());
  cache_.insert(name, std::make_shared<const StoredChunk>(std::move(work.chunk)));
}

}  // namespace scd
