// RoPE settings of config.json in both spellings: `rope_theta` + `rope_scaling`, and `rope_parameters`.
#pragma once

#include <string>

#include "common/model/json_file.h"
#include "kernels/rope.h"

namespace scd {

struct RopeSettings {
  kernels::RopeTable table;
  std::string canonical;  // JSON with sorted keys, equal for equal settings in either spelling
};

// Types `default`, `linear` and `llama3`; others are refused by name.
RopeSettings read_rope_settings(const JsonFile& config, int32_t head_dim);

// The settings whose canonical form a peer sent. INVALID_ARGUMENT where it is none.
RopeSettings parse_rope_settings(const std::string& canonical, int32_t head_dim);

}  // namespace scd
