// What codecs have to know of a model that is loaded.
#pragma once

#include "common/codec/codec_model.h"
#include "common/model/model_config.h"

namespace scd {

inline CodecModel codec_model_of(const ModelConfig& config) {
  return {.layers = config.layers,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .hidden = config.hidden,
          .rope = config.rope};
}

}  // namespace scd
