// A consumer's side of every handshake.
#pragma once

#include <optional>
#include <string>

#include "common/codec/artifact.h"
#include "common/codec/codec_model.h"
#include "common/model/fingerprint.h"
#include "kernels/matrix.h"

namespace scd {

struct ConsumerIdentity {
  ModelFingerprint fingerprint;  // adapter included
  CodecModel model;
  std::string precision;                    // of the KV cache: "bf16" or "fp32"
  std::optional<ArtifactDecoder> artifact;  // with a calibrated codec
  kernels::Device device = kernels::Device::kCpu;
  bool adapter_unmerged =
      false;  // rounds otherwise than a model of the same fingerprint with the adapter in its weights
};

}  // namespace scd
