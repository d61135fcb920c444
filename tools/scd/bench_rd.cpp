#include "tools/scd/bench_rd.h"

#include <cmath>
#include <deque>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "common/codec/calibration/rate_fit.h"
#include "common/codec/rd/rd_codec.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/unrotated_kv.h"

namespace scd {
namespace {

constexpr int32_t kGroup = 2;  // layers of a unit
constexpr int64_t kPageTokens = 16;
constexpr auto kF32 = kernels::DType::kF32;
constexpr auto kDevice = kernels::Device::kCuda;

DenseMatrix normal_matrix(int64_t rows, int64_t columns, float deviation) {
  DenseMatrix map(rows, columns);
  kernels::fill_normal(map.view(), 1, deviation);
  return map;
}

class RdBench {
 public:
  explicit RdBench(const RdBenchSettings& settings)
      : settings_(settings),
        width_(settings.model.kv_width()),
        anchor_(memory_[0].matrix(settings.tokens, settings.model.hidden, kF32, kDevice)),
        page_count_((settings.tokens + kPageTokens - 1) / kPageTokens),
        pages_(memory_[1].matrix(2 * kGroup * page_count_ * kPageTokens, width_, settings.precision, kDevice)),
        layers_(layers()) {
    kernels::fill_normal(anchor_, 1, 1.0f);
    kernels::fill_normal(pages_, 2, 1.0f);
    page_ids_.resize(static_cast<size_t>(page_count_));
    std::iota(page_ids_.begin(), page_ids_.end(), 0);
    make_codec();
  }

  // Payloads of the whole prompt, as the encode stage makes them.
  void encode() {
    payloads_.clear();
    places_.clear();
    constexpr size_t kMostPending = 4;
    std::deque<std::unique_ptr<PendingPayloads>> pending;
    const auto take = [&](size_t most_left) {
      for (; pending.size() > most_left; pending.pop_front()) {
        for (ByteBuffer& payload : pending.front()->finish()) payloads_.push_back(std::move(payload));
      }
    };
    for (int64_t first = 0; first < settings_.tokens; first += settings_.batch_tokens) {
      const int64_t count = std::min(settings_.batch_tokens, settings_.tokens - first);
      std::vector<int64_t> chunks;
      for (int64_t t = 0; t < count; t += settings_.chunk_tokens) {
        chunks.push_back(std::min(settings_.chunk_tokens, count - t));
      }
      kept_anchor_.restart(first, count);  // as of a step
      for (const CodedUnit& unit : plan_.units) {
        int64_t next = first;
        for (const int64_t tokens : chunks) {
          places_.push_back({unit.first_layer, next, tokens});
          next += tokens;
        }
        const LayerChunk rows = chunk_of(unit, first, count);
        take(kMostPending - 1);
        pending.push_back(encoder_->begin(rows, chunks, {.level = 0}));
      }
    }
    take(0);
  }

  void rebuild() {
    kept_anchor_.restart(0, settings_.tokens);
    for (const CodeBlock& block : read_payloads()) {
      PayloadPlace place = block.place;
      place.anchor = anchor_rows(place.first_position, place.tokens);
      place.kept_anchor = &kept_anchor_;
      decoder_->decode_block(place, block, decoded_);
      kernels::write_unrotated_kv(layers_, {page_ids_, 0, place.tokens, place.first_position}, *decoded_.on_device.rope,
                                  decoded_.key_rows(), decoded_.value_rows());
    }
  }

  // What encode() does but for the coder.
  void codes() {
    for (int64_t first = 0; first < settings_.tokens; first += settings_.batch_tokens) {
      const int64_t count = std::min(settings_.batch_tokens, settings_.tokens - first);
      kept_anchor_.restart(first, count);
      for (size_t unit = 0; unit < plan_.units.size(); ++unit) {
        const LayerChunk rows = chunk_of(plan_.units[unit], first, count);
        const kernels::Matrix out = codes_memory_.matrix(int64_t{kGroup} * settings_.components, count, kF32, kDevice);
        maps_->products(unit, plan_.units[unit], rows, out);
      }
    }
  }

  // The first part of rebuild().
  std::vector<CodeBlock> read_payloads() const {
    std::vector<Payload> payloads;
    for (size_t i = 0; i < payloads_.size(); ++i) payloads.push_back({places_[i], payloads_[i]});
    return std::move(decoder_->read_ahead(payloads)).value_or_throw();
  }

  RdBenchResult result() const {
    RdBenchResult result;
    const auto inputs = static_cast<double>(2 * width_ * kGroup + settings_.model.hidden);
    const double components = double{kGroup} * settings_.components;
    const auto products = 2.0 * static_cast<double>(settings_.tokens) * static_cast<double>(plan_.units.size());
    result.encode_flops = products * components * inputs;
    result.rebuild_flops = products * static_cast<double>(2 * width_ * kGroup) *
                           (components + static_cast<double>(settings_.model.hidden));
    for (const ByteBuffer& payload : payloads_) result.payload_bytes += static_cast<double>(payload.size());
    return result;
  }

 private:
  void make_codec() {
    plan_.exact_layers = settings_.model.layers % kGroup + kGroup;
    for (int32_t layer = plan_.exact_layers; layer < settings_.model.layers; layer += kGroup) {
      plan_.units.push_back({layer, kGroup});
    }
    const int64_t components = int64_t{settings_.components} * kGroup, state = 2 * width_ * kGroup;
    const int64_t inputs = state + settings_.model.hidden;
    constexpr float kLargest = 8.0f, kSmallest = 0.36f;
    std::vector<float> deviations;
    for (int64_t i = 0; i < components; ++i) {
      const float share = static_cast<float>(i) / static_cast<float>(components);
      deviations.push_back(kLargest * std::pow(kSmallest / kLargest, share));
    }
    DenseMatrix encode = normal_matrix(components, inputs, 1.0f / std::sqrt(static_cast<float>(inputs)));
    for (int64_t row = 0; row < components; ++row) {
      for (int64_t column = 0; column < inputs; ++column) {
        encode.at(row, column) *= deviations[static_cast<size_t>(row)];
      }
    }
    const RdUnitEncoder unit_encoder{std::move(encode), std::vector<float>(static_cast<size_t>(components))};
    const RdUnitDecoder unit_decoder{
        normal_matrix(components, state, 1.0f / std::sqrt(static_cast<float>(components))),
        normal_matrix(settings_.model.hidden, state, 1.0f / std::sqrt(static_cast<float>(settings_.model.hidden))),
        std::vector<float>(static_cast<size_t>(state))};
    RdQuantiserSettings quantiser;
    quantiser.steps = {1.0f};
    quantiser.deviations.assign(plan_.units.size(), deviations);
    const DenseMatrix sample = normal_matrix(1, 1 << 16, 1.0f);
    const ComponentSample component{sample.values, 1.0f};
    train_tables({&component, 1}, quantiser);
    const size_t units = plan_.units.size();
    maps_ =
        std::make_unique<RdEncoderOnDevice>(settings_.model, std::vector(units, unit_encoder), RdQuantiser(quantiser));
    encoder_ = std::make_unique<RdEncoder>(settings_.model,
                                           RdEncoderMaps{plan_, {}, std::vector(units, unit_encoder), quantiser},
                                           Sha256Digest{}, kDevice);
    decoder_ = std::make_unique<RdDecoder>(
        settings_.model, RdDecoderMaps{plan_, std::vector(units, unit_decoder), quantiser}, Sha256Digest{}, kDevice);
  }

  std::vector<kernels::PagedKv> layers() const {
    const size_t half = static_cast<size_t>(page_count_ * kPageTokens * width_) * kernels::size_of(settings_.precision);
    std::vector<kernels::PagedKv> made;
    auto* next = static_cast<std::byte*>(pages_.data);
    for (int32_t layer = 0; layer < kGroup; ++layer, next += 2 * half) {
      made.push_back({.keys = next,
                      .values = next + half,
                      .kv_heads = settings_.model.kv_heads,
                      .page_tokens = kPageTokens,
                      .head_dim = settings_.model.head_dim,
                      .dtype = settings_.precision,
                      .device = kDevice});
    }
    return made;
  }

  LayerChunk chunk_of(const CodedUnit& unit, int64_t first, int64_t count) {
    LayerChunk chunk;
    chunk.layer = unit.first_layer;
    chunk.first_position = first;
    chunk.pages = {layers_, page_ids_, count};
    chunk.anchor = anchor_rows(first, count);
    chunk.kept_anchor = &kept_anchor_;
    return chunk;
  }

  kernels::ConstMatrix anchor_rows(int64_t first, int64_t count) const {
    kernels::ConstMatrix rows = anchor_;
    rows.data = rows.row<float>(first);
    rows.rows = count;
    return rows;
  }

  const RdBenchSettings settings_;
  const int64_t width_;
  kernels::GrowBuffer memory_[2];
  const kernels::Matrix anchor_;
  const int64_t page_count_;                    // of a layer
  const kernels::Matrix pages_;                 // keys and values of a unit's layers
  const std::vector<kernels::PagedKv> layers_;  // of any unit
  KeptAnchor kept_anchor_;
  std::vector<int32_t> page_ids_;
  LayerPlan plan_;
  std::unique_ptr<RdEncoderOnDevice> maps_;
  kernels::GrowBuffer codes_memory_;
  std::unique_ptr<RdEncoder> encoder_;
  std::unique_ptr<RdDecoder> decoder_;
  std::vector<ByteBuffer> payloads_;
  std::vector<PayloadPlace> places_;
  DecodedLayer decoded_;
};

}  // namespace

RdBenchResult bench_rd_on_device(const RdBenchSettings& settings,
                                 const std::function<double(const std::function<void()>&)>& best_seconds) {
  RdBench bench(settings);
  const double encode = best_seconds([&] { bench.encode(); });
  const double rebuild = best_seconds([&] { bench.rebuild(); });
  RdBenchResult result = bench.result();
  result.codes_seconds = best_seconds([&] { bench.codes(); });
  result.read_seconds = best_seconds([&] { (void)bench.read_payloads(); });
  result.encode_seconds = encode;
  result.rebuild_seconds = rebuild;
  return result;
}

}  // namespace scd
