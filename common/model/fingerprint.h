// The identity of a model: SHA-256 over the sorted (tensor name, dtype, shape, SHA-256 of bytes) of the unmerged base,
// then of the adapter, then the config fields that matter. Independent of sharding; cached beside the checkpoint (or in
// $SCD_CACHE where that is read-only), keyed by size and mtime.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace scd {

struct ModelFingerprint {
  std::string weights;    // 64 hex digits
  std::string tokenizer;  // SHA-256 of tokenizer.json, 64 hex digits; empty without one
  std::string rope;       // canonical JSON of the RoPE settings
  bool operator==(const ModelFingerprint&) const = default;
};

ModelFingerprint fingerprint_model(const std::filesystem::path& directory,
                                   const std::optional<std::filesystem::path>& adapter);

}  // namespace scd
