#include "prefill_server/encode/encode_stage.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"
#include "common/base/crc32c.h"
#include "kernels/device.h"

namespace scd {
namespace {

// The job's chunks that lie in a step and are to be made.
std::vector<ChunkInWork> chunks_in(const PrefillJob& job, const TokenRange& step) {
  std::vector<ChunkInWork> chunks;
  const RankCaps rank = job.rank();  // of all: it may be set meanwhile
  for (const TokenRange& tokens : job.plan.chunks) {
    const bool inside = tokens.first >= step.first && tokens.end() <= step.end();
    if (inside && tokens.end() > job.stored_tokens) chunks.push_back({.chunk = {tokens, {}}, .rank = rank});
  }
  return chunks;
}

}  // namespace

EncodeStage::EncodeStage(CodeCache& cache, QueuedSpans& spans, OnCode on_code)
    : cache_(cache), spans_(spans), on_code_(std::move(on_code)) {}

void EncodeStage::begin_step(std::span<const StepPart> parts) {
  SCD_CHECK(parts_.empty(), "the step before was ended");
  step_rows_ = 0;
  for (const StepPart& part : parts) {
    part.job->encoding = chunks_in(*part.job, part.tokens);
    parts_.push_back(
        {.job = part.job, .tokens = part.tokens, .first_row = step_rows_, .computed = {}, .residuals = {}});
    step_rows_ += part.tokens.count;
  }
}

void EncodeStage::end_step() {
  hand_on_finished(0);
  for (auto& [layer, stream] : streams_) spare_.push_back(std::move(stream));
  streams_.clear();
  parts_.clear();
}

EncodeStage::Part& EncodeStage::part_of(const Job& job) {
  const auto part = std::ranges::find(parts_, job, &Part::job);
  SCD_CHECK(part != parts_.end(), "the step was begun with the job");
  return *part;
}

void EncodeStage::keep_residual(const Job& job, const ResidualStream& residual) {
  hand_on_finished(most_pending());
  Part& part = part_of(job);
  Residual& kept = part.residuals[residual.layer];
  const int64_t rows = residual.rows.rows;
  const kernels::Matrix both = stream_memory(residual, job->encoder.device());
  kept.rows = kernels::rows_of(both, part.first_row, rows);
  kernels::copy(residual.rows, kept.rows);
  const bool as_anchor = both.rows > step_rows_;
  kept.as_anchor.restart(part.tokens.first, rows,
                         as_anchor ? kernels::rows_of(both, step_rows_ + part.first_row, rows) : kernels::Matrix{});
  encode_ready(part);
}

// One piece of memory for all parts of a step, so that it does not grow with the number of prompts. On a GPU the rows
// are followed by as many for what is made of them as anchors.
kernels::Matrix EncodeStage::stream_memory(const ResidualStream& residual, kernels::Device device) {
  spare_.reserve(spare_.size() + streams_.size() + 1);  // so that the end of a step that found no memory needs none
  const auto [stream, is_new] = streams_.try_emplace({residual.layer, device});
  if (is_new && !spare_.empty()) {
    stream->second = std::move(spare_.back());
    spare_.pop_back();
  }
  const int64_t rows = device == kernels::Device::kGpu ? 2 * step_rows_ : step_rows_;
  return stream->second.matrix(rows, residual.rows.columns, kernels::DType::kF32, device);
}

void EncodeStage::encode(const Job& job, const ComputedLayer& state) {
  hand_on_finished(most_pending());
  Part& part = part_of(job);
  part.computed.emplace(state);
  encode_ready(part);
}

// In the plan's order, which is also that of stored chunks.
void EncodeStage::encode_ready(Part& part) {
  const size_t units = part.job->plan.layers.units.size();
  for (; part.next_unit < units && !part.job->ended() && is_ready(part, part.next_unit); ++part.next_unit) {
    encode_unit(part, part.next_unit);
  }
}

bool EncodeStage::is_ready(const Part& part, size_t unit) {
  const LayerPlan& plan = part.job->plan.layers;
  const UnitSource source = part.job->encoder.source(plan, unit);
  if (plan.units[unit].residual) return part.residuals.contains(source.first_layer);
  return part.computed && part.computed->layer + 1 >= source.end();
}

void EncodeStage::encode_unit(Part& part, size_t unit) {
  hand_on_finished(most_pending() - 1);
  const Job& job = part.job;
  if (job->encoding.empty()) return;
  const kernels::Device device = job->encoder.device();
  if (device == kernels::Device::kCpu) spans_.settle();  // what it reads of a GPU is computing until it is there
  spans_.begin(device);
  std::vector<int64_t> counts;
  for (const ChunkInWork& work : job->encoding) counts.push_back(work.chunk.tokens.count);
  const int64_t first = job->encoding.front().chunk.tokens.first, end = job->encoding.back().chunk.tokens.end();
  const LayerChunk rows = rows_of_unit(part, unit, {first, end - first});
  pending_.push_back({job, unit, job->encoder.begin(rows, counts, job->encoding.front().rank)});
  pending_.back().span = spans_.end(PrefillPart::kEncode, {{job, 0}});
  const bool last = unit + 1 == job->plan.layers.units.size();
  if (last) spans_.settle();  // the job may end with its last code
  hand_on_finished(last ? 0 : most_pending());
}

// The units of a layer's prompts, and as many as keep the GPU's side queues at work.
size_t EncodeStage::most_pending() const {
  constexpr size_t kFewest = 4;
  return std::max(kFewest, parts_.size());
}

// In their order; more than `most_left` are waited for.
void EncodeStage::hand_on_finished(size_t most_left) {
  while (!pending_.empty() && (pending_.size() > most_left || pending_.front().payloads->finished())) hand_on_next();
}

void EncodeStage::hand_on_next() {
  const Pending pending = std::move(pending_.front());
  pending_.pop_front();
  const Job& job = pending.job;
  if (job->ended()) return;
  spans_.settle_until(pending.span);  // what it is made from is computing until it is there
  const auto started = PrefillClock::now();
  std::vector<ByteBuffer> payloads = pending.payloads->finish();
  job->spans.add({PrefillPart::kEncode, started, PrefillClock::now()});
  for (size_t i = 0; i < payloads.size() && !job->ended(); ++i) {
    hand_on(job, pending.unit, job->encoding[i], std::move(payloads[i]));
  }
  if (pending.unit + 1 == job->plan.layers.units.size()) job->encoding.clear();
}

void EncodeStage::hand_on(const Job& job, size_t unit, ChunkInWork& work, ByteBuffer payload) {
  const CodedUnit& coded = job->plan.layers.units[unit];
  if (payload.size() > job->request.slot_bytes) {
    job->fail({ErrorCode::kFailedPrecondition,
               "layer " + std::to_string(coded.first_layer) + " of " + std::to_string(work.chunk.tokens.count) +
                   " tokens is " + std::to_string(payload.size()) + " bytes, but the decode server's slots hold " +
                   std::to_string(job->request.slot_bytes) +
                   ": raise its transport.slot_bytes or lower codec.chunk_tokens here"});
    return;
  }
  CodeUnit code{.layer = coded.first_layer,
                .layers = coded.layers,
                .tokens = work.chunk.tokens,
                .level = static_cast<uint8_t>(work.rank.level),
                .crc = crc32c(payload),
                .payload = {}};
  code.payload = SharedBytes::from(std::move(payload));
  work.chunk.units.push_back(code);
  // Before the last code leaves: whoever has it may ask again at once, and finds the chunk stored.
  if (unit + 1 == job->plan.layers.units.size()) store(*job, work);
  on_code_(job, std::move(code));
}

// Layers side by side.
void EncodeStage::read_keys_values(const ComputedLayer& state, const UnitSource& source, const TokenRange& tokens,
                                   kernels::Device device) {
  const KvCache& cache = state.cache;
  const int64_t width = cache.shape().kv_width();
  keys_ = keys_memory_.matrix(tokens.count, width * source.layers, kernels::DType::kF32, device);
  values_ = values_memory_.matrix(tokens.count, width * source.layers, kernels::DType::kF32, device);
  for (int32_t index = 0; index < source.layers; ++index) {
    kernels::read_kv(cache.layer(source.first_layer + index), {state.page_ids, 0, tokens.count, tokens.first},
                     kernels::columns_of(keys_, index * width, width),
                     kernels::columns_of(values_, index * width, width));
  }
}

kernels::ConstMatrix EncodeStage::residual_rows(const Part& part, int32_t layer, const TokenRange& tokens) {
  kernels::ConstMatrix rows = part.residuals.at(layer).rows;
  rows.data = rows.row<float>(tokens.first - part.tokens.first);
  rows.rows = tokens.count;
  return rows;
}

LayerChunk EncodeStage::rows_of_unit(Part& part, size_t unit, const TokenRange& tokens) {
  const Encoder& encoder = part.job->encoder;
  const LayerPlan& plan = part.job->plan.layers;
  const UnitSource source = encoder.source(plan, unit);
  LayerChunk rows;
  rows.layer = plan.units[unit].first_layer;
  rows.first_position = tokens.first;
  if (plan.units[unit].residual) {
    rows.residual = residual_rows(part, source.first_layer, tokens);
  } else {
    const ComputedLayer& state = *part.computed;
    if (encoder.reads_pages()) {
      layers_.clear();
      for (int32_t layer = source.first_layer; layer < source.end(); ++layer) {
        layers_.push_back(state.cache.layer(layer));
      }
      rows.pages = {layers_, state.page_ids, tokens.count};
    } else {
      read_keys_values(state, source, tokens, encoder.device());
      rows.keys = keys_;
      rows.values = values_;
    }
    const kernels::ConstMatrix& input = part.computed->attention_input;
    if (input.data != nullptr) {
      rows.attention_input =
          kernels::matrix(input.row<float>(tokens.first - part.tokens.first), tokens.count, input.columns);
    }
  }
  if (source.anchor >= 0 && encoder.needs_residual(source.anchor)) {
    rows.anchor = residual_rows(part, source.anchor, tokens);
    rows.kept_anchor = &part.residuals.at(source.anchor).as_anchor;
  }
  return rows;
}

void EncodeStage::store(const PrefillJob& job, ChunkInWork& work) {
  // Its name says the ranks asked for at the start.
  if (work.rank != job.request.codec.rank) return;
  const Sha256Digest& name = job.names.of(work.chunk.tokens.end());
  cache_.insert(name, std::make_shared<const StoredChunk>(std::move(work.chunk)));
}

}  // namespace scd
