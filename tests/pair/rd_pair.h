// A pair with an artifact of rd that loses nothing but what its levels quantise.
#pragma once

#include <filesystem>
#include <utility>

#include "artifact_models.h"
#include "pair.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd::testing {

// Codes are the state itself, quantised ever more coarsely.
inline void write_rd_artifact(const std::filesystem::path& model, const ModelIdentity& consumer,
                              const std::filesystem::path& directory, const LayerPlan& plan) {
  ArtifactEncoder encoder;
  encoder.codec = CodecId::kRd;
  encoder.producer = model_identity(model);
  encoder.model = codec_model(model);
  encoder.fitted_with = encoder.producer.weights;
  RdSample sample = sample_rd(encoder.model, plan, {0.004f, 0.06f, 0.5f});
  encoder.rd = std::move(sample.encoder);
  ArtifactDecoder decoder;
  decoder.codec = CodecId::kRd;
  decoder.producer = encoder.producer;
  decoder.consumer = consumer;
  decoder.producer_model = decoder.model = encoder.model;
  decoder.rd = std::move(sample.decoder);
  decoder.levels = {{192, 2, 0.0005, 0.001}, {96, 4, 0.005, 0.01}, {48, 8, 0.05, 0.1}};
  decoder.prediction = decoder.levels.front();
  write_artifact(directory, encoder, decoder);
}

inline void write_rd_artifact(const std::filesystem::path& model, const std::filesystem::path& consumer,
                              const std::filesystem::path& directory, const LayerPlan& plan) {
  write_rd_artifact(model, model_identity(consumer), directory, plan);
}

class RdPairTest : public PairTest {
 protected:
  RdPairTest() { write_artifact_of(layer_by_layer(codec_model(base_model()).layers, 1)); }
  void write_artifact_of(const LayerPlan& plan) { write_artifact_of(plan, base_model()); }
  void write_artifact_of(const LayerPlan& plan, const std::filesystem::path& consumer) {
    std::filesystem::remove_all(artifact());
    write_rd_artifact(base_model(), consumer, artifact(), plan);
  }
  void start_rd_prefill(double bandwidth_gbps = 0) {
    start_prefill([&](PrefillConfig& config) {
      config.codec.artifact = artifact();
      config.transport.bandwidth_gbps = bandwidth_gbps;
    });
  }
  std::filesystem::path artifact() { return root() / "rd"; }
  void start_rd(const ChangeDecode& change = {}) {
    start_decode([&](DecodeConfig& config) {
      config.codec.mode = CodecMode::kRd;
      config.codec.artifact = artifact();
      if (change) change(config);
    });
  }
};

}  // namespace scd::testing
