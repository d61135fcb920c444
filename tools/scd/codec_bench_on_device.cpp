#include "tools/scd/codec_bench_on_device.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/codec/rd/rd_codec.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
#include "kernels/unrotated_kv.h"
#include "tools/scd/codec_bench_host.h"

namespace scd {
namespace {

constexpr int64_t kPageTokens = 16;
constexpr size_t kMostPending = 4;  // units under way
constexpr auto kF32 = kernels::DType::kF32;
constexpr auto kDevice = kernels::Device::kGpu;

// Numbers of deviation 1 get codes of the calibrated deviations.
RdEncoderMaps scaled(RdEncoderMaps maps) {
  for (size_t unit = 0; unit < maps.units.size(); ++unit) {
    auto& [map, offset] = maps.units[unit];
    std::ranges::fill(offset, 0.0f);
    for (int64_t row = 0; row < map.rows; ++row) {
      const std::span<float> values(map.view().row<float>(row), static_cast<size_t>(map.columns));
      const float length = std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0f));
      const float deviation = maps.quantiser.deviations[unit][static_cast<size_t>(row)];
      for (float& value : values) value *= length > 0 ? deviation / length : 0.0f;
    }
  }
  return maps;
}

// Pages of as many layers as a unit has at most.
class UnitPages {
 public:
  UnitPages(const CodecModel& model, int32_t layers, int64_t tokens) {
    const kernels::DType precision = kernels::native_precision(kDevice);
    const int64_t rows = (tokens + kPageTokens - 1) / kPageTokens * kPageTokens;
    const kernels::Matrix all = memory_.matrix(2 * layers * rows, model.kv_width(), precision, kDevice);
    kernels::fill_normal(all, 2, 1.0f);
    const size_t bytes = static_cast<size_t>(rows * model.kv_width()) * kernels::size_of(precision);
    auto* next = static_cast<std::byte*>(all.data);
    for (int32_t layer = 0; layer < layers; ++layer, next += 2 * bytes) {
      layers_.push_back({.keys = next,
                         .values = next + bytes,
                         .kv_heads = model.kv_heads,
                         .page_tokens = kPageTokens,
                         .head_dim = model.head_dim,
                         .dtype = precision,
                         .device = kDevice});
    }
  }
  std::span<const kernels::PagedKv> layers(int32_t count) const {
    return std::span(layers_).first(static_cast<size_t>(count));
  }

 private:
  kernels::GrowBuffer memory_;
  std::vector<kernels::PagedKv> layers_;
};

// A residual stream of the prompt.
class Stream {
 public:
  Stream(int64_t tokens, int64_t hidden, uint64_t seed) {
    if (hidden == 0) return;
    rows_ = memory_.matrix(tokens, hidden, kF32, kDevice);
    kernels::fill_normal(rows_, seed, 1.0f);
  }
  kernels::ConstMatrix rows(int64_t first, int64_t count) const {
    kernels::ConstMatrix part = rows_;
    part.data = rows_.row<float>(first);
    part.rows = count;
    return part;
  }

 private:
  kernels::GrowBuffer memory_;
  kernels::Matrix rows_{};
};

struct Batch {
  int64_t first = 0, tokens = 0;
  std::vector<int64_t> chunks;
};

std::vector<Batch> batches_of(const CodecBenchPrompt& prompt) {
  std::vector<Batch> batches;
  for (int64_t first = 0; first < prompt.tokens; first += prompt.batch_tokens) {
    Batch& batch = batches.emplace_back(first, std::min(prompt.batch_tokens, prompt.tokens - first));
    for (int64_t t = 0; t < batch.tokens; t += prompt.chunk_tokens) {
      batch.chunks.push_back(std::min(prompt.chunk_tokens, batch.tokens - t));
    }
  }
  return batches;
}

}  // namespace

class CodecBenchOnDevice::Work {
 public:
  Work(const CodecBenchMaps& maps, const CodecBenchPrompt& prompt)
      : prompt_(prompt),
        batches_(batches_of(prompt)),
        plan_(maps.encoder.plan),
        quantiser_(maps.encoder.quantiser),
        tables_(quantiser_),
        encoder_(maps.producer, maps.encoder, Sha256Digest{}, kDevice),
        products_(maps.producer, maps.encoder.units, quantiser_),
        decoder_(maps.consumer, maps.decoder, Sha256Digest{}, kDevice),
        anchor_(prompt.tokens, maps.producer.hidden, 1),
        residual_(prompt.tokens, maps.producer.hidden, 3),
        consumer_anchor_(prompt.tokens, maps.consumer.hidden, 1),
        pages_(maps.producer, most_layers([&](size_t unit) { return source(unit).layers; }), prompt.tokens),
        consumer_pages_(maps.consumer, most_layers([&](size_t unit) { return plan_.units[unit].layers; }),
                        prompt.tokens) {
    if (decoder_.device() != kDevice) {
      throw Error(ErrorCode::kFailedPrecondition, "the decoder has networks, which run on the CPU: leave --device out");
    }
    page_ids_.resize(static_cast<size_t>((prompt.tokens + kPageTokens - 1) / kPageTokens));
    std::iota(page_ids_.begin(), page_ids_.end(), 0);
    for (size_t unit = 0; unit < plan_.units.size(); ++unit) {
      encoder_inputs_.push_back(maps.encoder.units[unit].map.columns);
      const RdUnitDecoder& decoder = maps.decoder.units[unit];
      decoder_shapes_.push_back({decoder.map.columns, decoder.anchor_map.rows, decoder.anchor_basis.rows});
    }
  }

  int32_t levels() const { return quantiser_.levels(); }
  void use_level(int32_t level) { level_ = level; }

  // Pages to payloads, as the encode stage makes them.
  void encode() {
    payloads_.clear();
    places_.clear();
    std::deque<std::unique_ptr<PendingPayloads>> pending;
    const auto take = [&](size_t most_left) {
      for (; pending.size() > most_left; pending.pop_front()) {
        for (ByteBuffer& payload : pending.front()->finish()) payloads_.push_back(std::move(payload));
      }
    };
    for_each_unit([&](size_t, const Batch& batch, const LayerChunk& rows) {
      int64_t next = batch.first;
      for (const int64_t tokens : batch.chunks) {
        places_.push_back({rows.layer, next, tokens});
        next += tokens;
      }
      take(kMostPending - 1);
      pending.push_back(encoder_.begin(rows, batch.chunks, {.level = level_}));
    });
    take(0);
  }

  // Pages to codes.
  void make_codes() {
    for_each_unit([&](size_t unit, const Batch& batch, const LayerChunk& rows) {
      products_.products(unit, plan_.units[unit], rows,
                         codes_memory_.matrix(components(unit), batch.tokens, kF32, kDevice));
    });
  }

  // Codes of all units where their coders take them from.
  void fill_coders() {
    coders_.clear();
    for_each_unit([&](size_t unit, const Batch& batch, const LayerChunk& rows) {
      Coder& coder = coders_.emplace_back(unit, &batch.chunks);
      coder.numbers = coder.encoder.numbers(components(unit), batch.tokens);
      products_.products(unit, plan_.units[unit], rows, coder.numbers);
    });
  }

  // Of the codes that fill_coders() left.
  CodecBenchHost host_coder() const {
    CodecBenchHost host(quantiser_, level_);
    for (const Coder& coder : coders_) host.add(coder.unit, coder.numbers, *coder.chunks);
    return host;
  }

  // Codes to bodies of payloads. fill_coders() came before.
  std::vector<ByteBuffer> code() {
    std::vector<ByteBuffer> bodies;
    const auto finish = [&](Coder& coder) {
      const std::vector<kernels::CodedStream> streams = coder.encoder.finish();
      for (const kernels::CodedStream& stream : streams) {
        if (stream.rans.empty()) throw Error(ErrorCode::kFailedPrecondition, "most codes escape: the CPU codes them");
      }
      for (const auto of_chunk : rd_streams_by_chunk(streams, components(coder.unit), *coder.chunks)) {
        RdQuantiser::append_entropy_body(of_chunk, bodies.emplace_back());
      }
    };
    for (size_t i = 0; i < coders_.size() + kMostPending; ++i) {
      if (i >= kMostPending) finish(coders_[i - kMostPending]);
      if (i >= coders_.size()) continue;
      const Coder& next = coders_[i];
      coders_[i].encoder.start(rd_stream_parts(components(next.unit), *next.chunks), tables_.rows(next.unit, level_));
    }
    return bodies;
  }

  // The payloads of encode() to codes.
  std::vector<CodeBlock> read_payloads() const {
    std::vector<Payload> payloads;
    for (size_t i = 0; i < payloads_.size(); ++i) payloads.push_back({places_[i], payloads_[i]});
    return std::move(decoder_.read_ahead(payloads)).value_or_throw();
  }

  // Codes to pages; of a residual unit to the stream from which the consumer runs its layers.
  void rebuild(const std::vector<CodeBlock>& blocks) {
    int32_t anchor = -1;
    kept_anchor_.restart(0, prompt_.tokens);
    for (const CodeBlock& block : blocks) {
      const size_t index = plan_.unit_at(block.place.layer);
      const CodedUnit& unit = plan_.units[index];
      if (std::exchange(anchor, plan_.anchor_of(index)) != anchor) kept_anchor_.restart(0, prompt_.tokens);
      PayloadPlace place = block.place;
      if (anchor >= 0) place.anchor = consumer_anchor_.rows(place.first_position, place.tokens);
      place.kept_anchor = &kept_anchor_;
      decoder_.decode_block(place, block, decoded_);
      if (unit.residual) continue;
      kernels::write_unrotated_kv(consumer_pages_.layers(unit.layers),
                                  {page_ids_, 0, place.tokens, place.first_position}, *decoded_.on_device.rope,
                                  decoded_.key_rows(), decoded_.value_rows());
    }
  }

  void count(CodecBenchTimes& times) const {
    const auto tokens = static_cast<double>(prompt_.tokens);
    for (size_t unit = 0; unit < plan_.units.size(); ++unit) {
      const auto sent = static_cast<double>(components(unit));
      const auto& [state, directions, hidden] = decoder_shapes_[unit];
      times.codes += tokens * sent;
      times.encode_flops += 2 * tokens * sent * static_cast<double>(encoder_inputs_[unit]);
      times.rebuild_flops += 2 * tokens * static_cast<double>(state) * (sent + static_cast<double>(directions)) +
                             2 * tokens * static_cast<double>(hidden * directions);
    }
    for (const ByteBuffer& payload : payloads_) times.payload_bytes += static_cast<double>(payload.size());
  }

 private:
  struct Coder {
    size_t unit;
    const std::vector<int64_t>* chunks;
    kernels::StreamEncoder encoder = {};
    kernels::Matrix numbers = {};  // the encoder's
  };
  // [components, state], [directions, state] and, of few directions, [hidden, directions]
  struct DecoderShape {
    int64_t state, directions, hidden;
  };

  UnitSource source(size_t unit) const { return encoder_.source(plan_, unit); }
  int64_t components(size_t unit) const { return quantiser_.components(static_cast<int32_t>(unit), level_); }

  int32_t most_layers(const auto& layers_of) const {
    int32_t most = 1;
    for (size_t unit = 0; unit < plan_.units.size(); ++unit) {
      if (!plan_.units[unit].residual) most = std::max(most, layers_of(unit));
    }
    return most;
  }

  // Batch by batch, as the engine hands over what it has computed.
  void for_each_unit(const auto& action) {
    for (const Batch& batch : batches_) {
      int32_t anchor = -1;
      kept_anchor_.restart(batch.first, batch.tokens);
      for (size_t unit = 0; unit < plan_.units.size(); ++unit) {
        const UnitSource from = source(unit);
        LayerChunk chunk;
        chunk.layer = plan_.units[unit].first_layer;
        chunk.first_position = batch.first;
        if (plan_.units[unit].residual) {
          chunk.residual = residual_.rows(batch.first, batch.tokens);
        } else {
          chunk.pages = {pages_.layers(from.layers), page_ids_, batch.tokens};
        }
        if (std::exchange(anchor, from.anchor) != anchor) kept_anchor_.restart(batch.first, batch.tokens);
        if (anchor >= 0) chunk.anchor = anchor_.rows(batch.first, batch.tokens);
        chunk.kept_anchor = &kept_anchor_;
        action(unit, batch, chunk);
      }
    }
  }

  const CodecBenchPrompt prompt_;
  const std::vector<Batch> batches_;
  const LayerPlan plan_;
  const RdQuantiser quantiser_;
  const RdTablesOnDevice tables_;
  const RdEncoder encoder_;
  const RdEncoderOnDevice products_;
  const RdDecoder decoder_;
  const Stream anchor_, residual_, consumer_anchor_;
  const UnitPages pages_, consumer_pages_;  // of any unit
  std::vector<int64_t> encoder_inputs_;     // by unit
  std::vector<DecoderShape> decoder_shapes_;
  std::vector<int32_t> page_ids_;
  int32_t level_ = 0;
  KeptAnchor kept_anchor_;
  kernels::GrowBuffer codes_memory_;
  std::vector<Coder> coders_;
  std::vector<ByteBuffer> payloads_;
  std::vector<PayloadPlace> places_;
  DecodedLayer decoded_;
};

CodecBenchOnDevice::CodecBenchOnDevice(CodecBenchMaps maps, const CodecBenchPrompt& prompt) {
  maps.encoder = scaled(std::move(maps.encoder));
  work_ = std::make_unique<Work>(maps, prompt);
}
CodecBenchOnDevice::~CodecBenchOnDevice() = default;

int32_t CodecBenchOnDevice::levels() const { return work_->levels(); }

CodecBenchTimes CodecBenchOnDevice::measure(int32_t level, const BestSeconds& best_seconds) {
  Work& work = *work_;
  work.use_level(level);
  CodecBenchTimes times;
  times.encode_seconds = best_seconds([&] { work.encode(); });
  times.rebuild_seconds = best_seconds([&] { work.rebuild(work.read_payloads()); });
  times.codes_seconds = best_seconds([&] { work.make_codes(); });
  work.fill_coders();
  times.coding_seconds = best_seconds([&] { (void)work.code(); });
  times.reading_seconds = best_seconds([&] { (void)work.read_payloads(); });
  const std::vector<CodeBlock> blocks = work.read_payloads();
  times.products_seconds = best_seconds([&] { work.rebuild(blocks); });
  work.count(times);
  return times;
}

CodecBenchHostTimes CodecBenchOnDevice::measure_host(int32_t level, const BestSeconds& best_seconds) {
  Work& work = *work_;
  work.use_level(level);
  work.fill_coders();
  CodecBenchHost host = work.host_coder();
  CodecBenchHostTimes times;
  times.fetch_seconds = best_seconds([&] { host.fetch(); });
  times.coding_seconds = best_seconds([&] { host.code(); });
  if (host.bodies() != work.code()) throw Error(ErrorCode::kInternal, "bench codec: host and GPU code differently");
  times.reading_seconds = best_seconds([&] { host.read(); });
  times.return_seconds = best_seconds([&] { host.send_back(); });
  return times;
}

}  // namespace scd
