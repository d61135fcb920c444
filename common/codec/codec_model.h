// What a codec has to know of a model: the shape of its cache and how its keys are rotated.
#pragma once

#include <cstdint>

#include "kernels/rope.h"

namespace scd {

struct CodecModel {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t hidden = 0;
  kernels::RopeTable rope;

  int64_t kv_width() const { return int64_t{kv_heads} * head_dim; }
  bool same_kv_shape(const CodecModel& other) const {
    return layers == other.layers && kv_heads == other.kv_heads && head_dim == other.head_dim;
  }
  bool operator==(const CodecModel&) const = default;
};

}  // namespace scd
