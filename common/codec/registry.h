// From a codec's id to its encoder and decoder. A new codec: its id in codec.h, its classes beside scd_codec.h (or its
// PlainBody beside raw_body.h when it needs no calibration), its name and its case in registry.cpp.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "kernels/matrix.h"

namespace scd {

std::vector<CodecId> all_codecs();
std::string_view to_string(CodecId id);  // "raw", "scd": as in YAML and tables
std::optional<CodecId> codec_from_name(std::string_view name);
std::optional<CodecId> codec_from_number(int number);  // as on the wire and in the protocol
bool needs_artifact(CodecId id);
bool has_levels(CodecId id);  // codes at several rates and in two forms: rd and kvtc

// Where the linear maps of rd and kvtc run, and where raw finds and leaves keys and values; other codecs work on the
// CPU whatever it says, and so does raw's decoder between models that rotate keys differently. A decoder's precision is
// that of the cache it fills: for BF16 its maps and what they multiply are rounded as the cache rounds what comes out,
// which is several times faster where the hardware multiplies BF16. A GPU's decoder always does so.
struct MapPlacement {
  kernels::Device device = kernels::Device::kCpu;
  kernels::DType precision = kernels::DType::kF32;
};

// artifact: null for codecs that need none. Throws Error kFailedPrecondition when it is missing or does not fit.
std::unique_ptr<Encoder> make_encoder(CodecId id, const CodecModel& producer, const ArtifactEncoder* artifact,
                                      kernels::Device device = kernels::Device::kCpu);
std::unique_ptr<Decoder> make_decoder(CodecId id, const CodecModel& producer, const CodecModel& consumer,
                                      const ArtifactDecoder* artifact, const MapPlacement& placement = {});

}  // namespace scd
