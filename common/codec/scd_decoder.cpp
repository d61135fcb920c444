#include <algorithm>
#include <utility>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "common/codec/scd_codec.h"
#include "kernels/linear.h"

namespace scd {
namespace {

void require_fit(bool fits, int64_t layer, const char* what) {
  if (fits) return;
  throw Error(ErrorCode::kFailedPrecondition, "codec scd: " + std::string(what) + " decoder of layer " +
                                                  std::to_string(layer) + " does not fit the consumer's shape");
}

void require_predictor(const ScdPredictor& predictor, int64_t hidden, int64_t layer) {
  const int64_t rank = predictor.linear.rows;
  require_fit(rank >= 1 && rank <= UINT16_MAX && predictor.linear.columns == hidden, layer, "hidden");
  require_fit(static_cast<int64_t>(predictor.bias.size()) == hidden, layer, "hidden");
  require_fit(predictor.network.fits(rank, hidden), layer, "network");
}

// out [samples, head_dim] = codes^T decoder[:rank].
void decode_rows(const DenseMatrix& codes, const DenseMatrix& decoder, std::vector<float>& out) {
  out.resize(static_cast<size_t>(codes.columns * decoder.columns));
  kernels::gemm_f32({.a = codes.view(),
                     .b = decoder.top(codes.rows),
                     .c = kernels::matrix(out.data(), codes.columns, decoder.columns),
                     .transpose_a = true});
}

bool rank_fits(int64_t rank, int64_t calibrated) { return rank >= 1 && rank <= calibrated; }

}  // namespace

ScdDecoder::ScdDecoder(const CodecModel& consumer, std::vector<ScdLayerDecoder> layers, const Sha256Digest& encoder_id)
    : consumer_(consumer), layers_(std::move(layers)), encoder_id_(encoder_id) {
  if (static_cast<int32_t>(layers_.size()) != consumer_.layers) {
    throw Error(ErrorCode::kFailedPrecondition, "codec scd: decoder of " + std::to_string(layers_.size()) +
                                                    " layers, consumer of " + std::to_string(consumer_.layers));
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    const ScdLayerDecoder& maps = layers_[i];
    const auto layer = static_cast<int64_t>(i);
    if (maps.is_patch()) {
      require_predictor(maps.predictor, consumer_.hidden, layer);
      continue;
    }
    for (const DenseMatrix* map : {&maps.key, &maps.value}) {
      require_fit(map->rows >= 1 && map->rows <= UINT16_MAX && map->columns == consumer_.head_dim, layer,
                  map == &maps.key ? "key" : "value");
    }
  }
}

size_t ScdDecoder::max_payload_bytes(int64_t tokens) const {
  int64_t values_per_token = 0;
  for (const ScdLayerDecoder& maps : layers_) {
    values_per_token =
        std::max(values_per_token,
                 maps.is_patch() ? maps.predictor.linear.rows : (maps.key.rows + maps.value.rows) * consumer_.kv_heads);
  }
  return kPayloadHeaderBytes + static_cast<size_t>(tokens * values_per_token) * 2;
}

Result<ScdDecoder::Codes> ScdDecoder::read_codes(const PayloadPlace& place, std::span<const std::byte> payload) const {
  const auto read = read_payload_header(place, payload);
  if (!read) return read.failure();
  const PayloadHeader& header = read.value();
  if (place.layer < 0 || place.layer >= consumer_.layers) {
    return payload_failure(place, "the model has " + std::to_string(consumer_.layers) + " layers");
  }
  const ScdLayerDecoder& maps = layers_[static_cast<size_t>(place.layer)];
  const bool patch = maps.is_patch();
  if (header.kind != (patch ? PayloadKind::kScdPatch : PayloadKind::kScdReuse)) {
    return payload_failure(place, patch ? "not a Patch payload" : "not a Reuse payload");
  }
  const bool ranks_fit =
      patch ? rank_fits(header.first_rank, maps.predictor.linear.rows) && header.second_rank == 0
            : rank_fits(header.first_rank, maps.key.rows) && rank_fits(header.second_rank, maps.value.rows);
  if (!ranks_fit) {
    return payload_failure(place, "ranks " + std::to_string(header.first_rank) + " and " +
                                      std::to_string(header.second_rank) + " are not what was calibrated");
  }
  const int64_t samples = patch ? place.tokens : place.tokens * consumer_.kv_heads;
  const auto body = payload.subspan(kPayloadHeaderBytes);
  const size_t first_bytes = static_cast<size_t>(header.first_rank * samples) * 2;
  const size_t expected_bytes = first_bytes + static_cast<size_t>(header.second_rank * samples) * 2;
  if (body.size() != expected_bytes) {
    return payload_failure(place,
                           std::to_string(body.size()) + " bytes of codes, not " + std::to_string(expected_bytes));
  }
  Codes codes{DenseMatrix(header.first_rank, samples), DenseMatrix(header.second_rank, samples)};
  const bool first_finite = read_bf16(body.first(first_bytes), codes.first.values);
  const bool second_finite = read_bf16(body.subspan(first_bytes), codes.second.values);
  if (!first_finite || !second_finite) return payload_failure(place, "a code is not finite");
  return codes;
}

Result<Done> ScdDecoder::decode(const PayloadPlace& place, std::span<const std::byte> payload,
                                DecodedLayer& out) const {
  const auto read = read_codes(place, payload);
  if (!read) return read.failure();
  const Codes& codes = read.value();
  const ScdLayerDecoder& maps = layers_[static_cast<size_t>(place.layer)];
  out.kind = maps.is_patch() ? DecodedKind::kAttentionInput : DecodedKind::kKeysValues;
  out.tokens = place.tokens;
  if (maps.is_patch()) {
    out.keys.clear();
    out.values.clear();
    out.hidden.resize(static_cast<size_t>(place.tokens * consumer_.hidden));
    predict_attention_input(maps.predictor, codes.first.view(),
                            kernels::matrix(out.hidden.data(), place.tokens, consumer_.hidden));
    return Done{};
  }
  out.hidden.clear();
  decode_rows(codes.first, maps.key, out.keys);
  decode_rows(codes.second, maps.value, out.values);
  rotate_chunk(kernels::matrix(out.keys.data(), place.tokens, consumer_.kv_width()), consumer_.head_dim,
               place.first_position, consumer_.rope, kernels::RopeDirection::kRotate);
  return Done{};
}

}  // namespace scd
