// How artifacts name the models of a pair test.
#pragma once

#include <filesystem>
#include <optional>

#include "common/codec/artifact.h"
#include "common/model/fingerprint.h"
#include "common/model/model_config.h"

namespace scd::testing {

inline CodecModel codec_model(const std::filesystem::path& directory) {
  const ModelConfig config = ModelConfig::from_directory(directory);
  return {config.layers, config.kv_heads, config.head_dim, config.hidden, config.rope};
}

inline ModelIdentity model_identity(const std::filesystem::path& directory,
                                    const std::optional<std::filesystem::path>& adapter = std::nullopt) {
  const ModelFingerprint fingerprint = fingerprint_model(directory, adapter);
  return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
}

}  // namespace scd::testing
