// Who this server is to its consumers: the model it runs and the encoders it offers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/codec/codec.h"
#include "common/model/fingerprint.h"

namespace scd {

struct Producer {
  std::string name;  // of the model
  ModelFingerprint fingerprint;
  int32_t layers = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t hidden = 0;
  int32_t vocabulary = 0;
  int64_t context_tokens = 0;
  std::string precision;  // "bf16" or "fp32"
  int64_t chunk_tokens = 0;
  std::string data_plane;     // host:port
  double bandwidth_gbps = 0;  // cap on what is sent, Gbit/s; 0: none
  std::vector<std::pair<CodecId, std::unique_ptr<Encoder>>> encoders;

  const Encoder* encoder(CodecId id) const {
    for (const auto& [offered, encoder] : encoders) {
      if (offered == id) return encoder.get();
    }
    return nullptr;
  }
};

}  // namespace scd
