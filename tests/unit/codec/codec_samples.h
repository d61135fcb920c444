// Small models, chunks and maps that codec tests share.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/scd_maps.h"

namespace scd::testing {

inline CodecModel small_model(double rope_base = 10000.0) {
  CodecModel model{.layers = 3, .kv_heads = 2, .head_dim = 8, .hidden = 24, .rope = {}};
  for (int i = 0; i < model.head_dim / 2; ++i) {
    model.rope.inverse_frequencies.push_back(static_cast<float>(std::pow(rope_base, -2.0 * i / model.head_dim)));
  }
  return model;
}

inline DenseMatrix random_matrix(int64_t rows, int64_t columns, uint32_t seed) {
  DenseMatrix matrix(rows, columns);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (float& value : matrix.values) value = normal(random);
  return matrix;
}

inline DenseMatrix identity_matrix(int64_t size) {
  DenseMatrix matrix(size, size);
  for (int64_t i = 0; i < size; ++i) matrix.at(i, i) = 1.0f;
  return matrix;
}

// Keys, values and hidden states of one chunk of `layers` layers, with the storage behind the views.
struct SampleChunk {
  DenseMatrix keys;
  DenseMatrix values;
  DenseMatrix attention_input;
  DenseMatrix residual;
  DenseMatrix anchor;
  LayerChunk chunk;

  SampleChunk(const CodecModel& model, int32_t layer, int64_t first_position, int64_t tokens, uint32_t seed,
              int32_t layers = 1)
      : keys(random_matrix(tokens, layers * model.kv_width(), seed)),
        values(random_matrix(tokens, layers * model.kv_width(), seed + 1)),
        attention_input(random_matrix(tokens, model.hidden, seed + 2)),
        residual(random_matrix(tokens, model.hidden, seed + 3)),
        anchor(random_matrix(tokens, model.hidden, seed + 4)) {
    chunk = {layer,
             first_position,
             std::as_const(keys).view(),
             std::as_const(values).view(),
             std::as_const(attention_input).view(),
             std::as_const(residual).view(),
             std::as_const(anchor).view()};
  }
  SampleChunk(const SampleChunk&) = delete;
  SampleChunk& operator=(const SampleChunk&) = delete;

  // As the place of a consumer that is the producer.
  PayloadPlace place() const { return {chunk.layer, chunk.first_position, keys.rows, anchor.view()}; }
};

// Layers 0 and 2 Reuse, layer 1 Patch, all at full rank, with a small network.
inline std::vector<ScdLayerEncoder> sample_encoder_layers(const CodecModel& model) {
  const auto reuse = [&](uint32_t seed) {
    return ScdLayerEncoder{.key = random_matrix(model.head_dim, model.head_dim, seed),
                           .value = random_matrix(model.head_dim, model.head_dim, seed + 1),
                           .hidden = {}};
  };
  return {reuse(11), ScdLayerEncoder{.key = {}, .value = {}, .hidden = random_matrix(12, model.hidden, 21)}, reuse(31)};
}

inline std::vector<ScdLayerDecoder> sample_decoder_layers(const CodecModel& model) {
  const auto reuse = [&](uint32_t seed) {
    return ScdLayerDecoder{.key = random_matrix(model.head_dim, model.head_dim, seed),
                           .value = random_matrix(model.head_dim, model.head_dim, seed + 1),
                           .predictor = {}};
  };
  ScdLayerDecoder patch;
  patch.predictor.linear = random_matrix(12, model.hidden, 41);
  patch.predictor.bias = random_matrix(1, model.hidden, 42).values;
  patch.predictor.network.input = random_matrix(12, 5, 43);
  patch.predictor.network.input_bias = random_matrix(1, 5, 44).values;
  patch.predictor.network.output = random_matrix(5, model.hidden, 45);
  return {reuse(51), patch, reuse(61)};
}

}  // namespace scd::testing
