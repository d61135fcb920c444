#include "tools/scd/noise_codec.h"

#include <random>
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
    std::seed_seq seeds{static_cast<uint64_t>(seed_), static_cast<uint64_t>(place.layer),
                        static_cast<uint64_t>(place.first_position)};
    std::mt19937_64 random(seeds);
    const LayerNoise& noise = noise_.at(static_cast<size_t>(place.layer));
    add(out.keys, noise.keys, random);
    add(out.values, noise.values, random);
    return decoded;
  }

 private:
  static void add(std::vector<float>& values, float deviation, std::mt19937_64& random) {
    if (deviation <= 0) return;
    std::normal_distribution<float> normal(0.0f, deviation);
    for (float& value : values) value += normal(random);
  }

  std::unique_ptr<Decoder> raw_;
  std::vector<LayerNoise> noise_;
  uint64_t seed_;
};

}  // namespace

std::unique_ptr<Decoder> make_noise_decoder(const CodecModel& model, std::vector<LayerNoise> noise, uint64_t seed) {
  return std::make_unique<NoiseDecoder>(model, std::move(noise), seed);
}

}  // namespace scd
