#include "tools/scd/noise_codec.h"

#include <compare>
#include <map>
#include <mutex>
#include <random>
#include <span>
#include <utility>

#include "common/codec/registry.h"

namespace scd {
namespace {

class NoiseDecoder final : public Decoder {
 public:
  NoiseDecoder(const CodecModel& model, std::vector<LayerNoise> noise, uint64_t seed)
      : raw_(make_decoder(CodecId::kRaw, model, model, nullptr)), noise_(std::move(noise)), seed_(seed) {}

  const Sha256Digest& encoder_id() const override { return raw_->encoder_id(); }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return raw_->plan(exact_layers); }
  size_t max_payload_bytes(int64_t tokens) const override { return raw_->max_payload_bytes(tokens); }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override {
    auto decoded = raw_->decode(place, payload, out);
    if (!decoded) return decoded;
    const LayerValues& noise = noise_at(place.first_position, out)[static_cast<size_t>(place.layer)];
    add(noise.keys, out.keys);
    add(noise.values, out.values);
    return decoded;
  }

 private:
  struct LayerValues {
    std::vector<float> keys, values;  // empty: none
  };
  struct Chunk {
    int64_t first_position;
    size_t keys, values;
    auto operator<=>(const Chunk&) const = default;
  };

  static std::vector<float> draw(size_t count, float deviation, std::mt19937_64& random) {
    std::vector<float> values;
    if (deviation <= 0) return values;
    std::normal_distribution<float> normal(0.0f, deviation);
    values.reserve(count);
    for (size_t i = 0; i < count; ++i) values.push_back(normal(random));
    return values;
  }
  static void add(std::span<const float> noise, std::vector<float>& values) {
    for (size_t i = 0; i < noise.size(); ++i) values[i] += noise[i];
  }

  // All windows get the same in the same place: it is drawn once, of all layers beside each other.
  const std::vector<LayerValues>& noise_at(int64_t first_position, const DecodedLayer& like) const {
    const Chunk chunk{first_position, like.keys.size(), like.values.size()};
    const std::scoped_lock lock(mutex_);
    std::vector<LayerValues>& layers = drawn_[chunk];
    if (!layers.empty()) return layers;
    layers.resize(noise_.size());
#pragma omp parallel for schedule(dynamic)
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      std::seed_seq seeds{seed_, uint64_t{layer}, static_cast<uint64_t>(first_position)};
      std::mt19937_64 random(seeds);
      layers[layer].keys = draw(chunk.keys, noise_[layer].keys, random);
      layers[layer].values = draw(chunk.values, noise_[layer].values, random);
    }
    return layers;
  }

  std::unique_ptr<Decoder> raw_;
  std::vector<LayerNoise> noise_;
  uint64_t seed_;
  mutable std::mutex mutex_;
  mutable std::map<Chunk, std::vector<LayerValues>> drawn_;  // stays where it is
};

}  // namespace

std::unique_ptr<Decoder> make_noise_decoder(const CodecModel& model, std::vector<LayerNoise> noise, uint64_t seed) {
  return std::make_unique<NoiseDecoder>(model, std::move(noise), seed);
}

}  // namespace scd
