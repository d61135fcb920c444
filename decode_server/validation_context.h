// What requests to a model are checked against.
#pragma once

#include <optional>
#include <string>

#include "common/codec/codec.h"
#include "common/model/model_config.h"
#include "common/tokenizer/tokenizer.h"
#include "decode_server/config.h"

namespace scd {

// What it refers to outlives the checks.
struct ValidationContext {
  const DecodeConfig& config;
  const ModelConfig& model;
  const Tokenizer& tokenizer;
  std::string model_name;
  int32_t kv_pages = 0;                      // of the cache
  std::optional<CodecId> artifact_codec{};   // of the model's artifact; nothing without one
  int32_t levels = 1;                        // of it
  int32_t level = 0;                         // where a request names none
  std::optional<int32_t> exact_layers{};     // that its calibration has the consumer compute
  bool predicts = false;                     // from the residual stream of those layers
  std::string pages_key = "kv_cache.pages";  // what decided about kv_pages
};

}  // namespace scd
