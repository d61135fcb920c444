#include <algorithm>
#include <utility>

#include "common/codec/key_rotation.h"
#include "common/codec/payload.h"
#include "common/codec/scd_codec.h"
#include "kernels/linear.h"

namespace scd {
namespace {

int64_t capped(int64_t calibrated, int32_t cap) { return cap > 0 ? std::min<int64_t>(calibrated, cap) : calibrated; }

// codes [rank, samples] = map[:rank] samples^T, appended as BF16.
void append_codes(const DenseMatrix& map, int64_t rank, kernels::ConstMatrix samples, ByteBuffer& out) {
  DenseMatrix codes(rank, samples.rows);
  kernels::gemm_f32({.a = map.top(rank), .b = samples, .c = codes.view(), .transpose_b = true});
  append_bf16(codes.values, out);
}

// [tokens, heads * head_dim] -> [tokens * heads, head_dim]: the same memory when the rows are dense, else a copy.
kernels::ConstMatrix head_rows(kernels::ConstMatrix rows, int64_t head_dim, DenseMatrix& copy) {
  if (rows.row_stride != rows.columns) {
    copy = DenseMatrix(rows.rows, rows.columns);
    for (int64_t r = 0; r < rows.rows; ++r) {
      std::copy_n(rows.row<float>(r), rows.columns, copy.view().row<float>(r));
    }
    rows = std::as_const(copy).view();
  }
  return kernels::matrix(static_cast<const float*>(rows.data), rows.rows * (rows.columns / head_dim), head_dim);
}

void require_map(const DenseMatrix& map, int64_t columns, int64_t layer, const char* what) {
  if (map.rows >= 1 && map.rows <= UINT16_MAX && map.columns == columns) return;
  throw Error(ErrorCode::kFailedPrecondition, "codec scd: " + std::string(what) + " encoder of layer " +
                                                  std::to_string(layer) + " is " + std::to_string(map.rows) + " x " +
                                                  std::to_string(map.columns) + "; the model wants rank x " +
                                                  std::to_string(columns));
}

}  // namespace

ScdEncoder::ScdEncoder(const CodecModel& producer, std::vector<ScdLayerEncoder> layers, const Sha256Digest& id)
    : producer_(producer), layers_(std::move(layers)), id_(id) {
  if (static_cast<int32_t>(layers_.size()) != producer_.layers) {
    throw Error(ErrorCode::kFailedPrecondition, "codec scd: encoder of " + std::to_string(layers_.size()) +
                                                    " layers, producer of " + std::to_string(producer_.layers));
  }
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const ScdLayerEncoder& maps = layers_[layer];
    const auto index = static_cast<int64_t>(layer);
    if (maps.is_patch()) {
      require_map(maps.hidden, producer_.hidden, index, "hidden");
    } else {
      require_map(maps.key, producer_.head_dim, index, "key");
      require_map(maps.value, producer_.head_dim, index, "value");
    }
  }
}

bool ScdEncoder::needs_attention_input(int32_t layer) const {
  return layers_.at(static_cast<size_t>(layer)).is_patch();
}

void ScdEncoder::encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const {
  const ScdLayerEncoder& maps = layers_.at(static_cast<size_t>(chunk.layer));
  const int64_t tokens = maps.is_patch() ? chunk.attention_input.rows : chunk.keys.rows;
  SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens, "tokens of a chunk");
  if (maps.is_patch()) {
    const int64_t rank = capped(maps.hidden.rows, caps.hidden);
    append_payload_header({PayloadKind::kScdPatch, static_cast<uint16_t>(tokens), static_cast<uint16_t>(rank)}, out);
    append_codes(maps.hidden, rank, chunk.attention_input, out);
    return;
  }
  const int64_t key_rank = capped(maps.key.rows, caps.key);
  const int64_t value_rank = capped(maps.value.rows, caps.value);
  append_payload_header({PayloadKind::kScdReuse, static_cast<uint16_t>(tokens), static_cast<uint16_t>(key_rank),
                         static_cast<uint16_t>(value_rank)},
                        out);
  const DenseMatrix keys = unrotated_copy(chunk.keys, producer_.head_dim, chunk.first_position, producer_.rope);
  DenseMatrix copy;
  append_codes(maps.key, key_rank, head_rows(keys.view(), producer_.head_dim, copy), out);
  append_codes(maps.value, value_rank, head_rows(chunk.values, producer_.head_dim, copy), out);
}

}  // namespace scd
