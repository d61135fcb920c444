// The parts of an artifact as text and tensors; artifact.cpp puts them on disk and reads them back.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "common/codec/artifact.h"

namespace scd {

// The two files of a part.
struct ArtifactFiles {
  std::string header;   // codec.json
  std::string tensors;  // tensors.safetensors
};

// SHA-256 over both files, each preceded by its length: the encoder id.
Sha256Digest digest_of(const ArtifactFiles& files);

ArtifactFiles serialize(const ArtifactEncoder& encoder);
ArtifactFiles serialize(const ArtifactDecoder& decoder);

// `directory` is named in errors. Throw Error kDataLoss or kUnimplemented.
ArtifactEncoder parse_encoder(const ArtifactFiles& files, const std::filesystem::path& directory);
ArtifactDecoder parse_decoder(const ArtifactFiles& files, const std::filesystem::path& directory);

}  // namespace scd
