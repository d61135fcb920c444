// What calibration leaves behind, one directory per producer encoder:
//
//   encoder/codec.json, encoder/tensors.safetensors        their SHA-256 is the id on the wire and in cache keys
//   decoders/<consumer weights fingerprint>/codec.json, tensors.safetensors
//
// Adding a consumer never changes encoder/. Writing is atomic (a temporary directory, then a rename); reading is
// bounded and checks every field, errors naming file and field. Layout: docs/codec.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/sha256.h"
#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/lora_delta_maps.h"
#include "common/codec/rd/rd_maps.h"
#include "common/codec/scd_maps.h"

namespace scd {

inline constexpr int32_t kArtifactVersion = 1;

// A model as the handshake names it; the strings are those of common/model/fingerprint.h.
struct ModelIdentity {
  std::string weights;    // 64 hex digits
  std::string tokenizer;  // 64 hex digits; empty without one
  std::string rope;       // canonical JSON of the RoPE settings
  bool operator==(const ModelIdentity&) const = default;
};

// What a part was fitted on: enough to do it again.
struct CalibrationRecord {
  std::vector<std::string> text_sha256;  // of each text file, in the order given
  int64_t tokens = 0;                    // fitted on
  int64_t held_out_tokens = 0;           // KL measured on; never fitted
  uint64_t seed = 0;
  double ridge = 0;
  bool made_up() const { return tokens == 0; }  // maps are random: answers mean nothing
  bool operator==(const CalibrationRecord&) const = default;
};

// What calibration measured on held-out text, with exact layer 0, sinks and suffix.
struct CodecPrediction {
  double bytes_per_token = 0;  // payload bytes, block headers included, layer 0 excluded
  double ratio_to_bf16 = 0;    // against BF16 keys and values of the same layers
  double kl = 0;               // mean over the scored tokens of held-out text, nats
  double kl_upper = 0;         // of that mean, 95 % one-sided: what max_kl is compared with
  bool operator==(const CodecPrediction&) const = default;
};

struct ArtifactEncoder {
  Sha256Digest id{};  // filled by writing and loading
  ModelIdentity producer;
  CodecModel model;
  CalibrationRecord calibration;
  std::string fitted_with;  // weights fingerprint of the consumer whose cache the codes were fitted on
  std::vector<std::string> also_fitted_with;  // and of others, where it was fitted for several at once
  CodecId codec = CodecId::kScd;
  std::vector<ScdLayerEncoder> layers;      // of scd
  RdEncoderMaps rd;                         // of rd and kvtc
  LayerPlan plan;                           // of droidspeak
  std::vector<LoraDeltaEncoderLayer> lora;  // of lora_delta

  std::vector<int32_t> patch_layers() const;
  bool operator==(const ArtifactEncoder&) const = default;
};

struct ArtifactDecoder {
  Sha256Digest encoder_id{};
  ModelIdentity producer;
  ModelIdentity consumer;
  CodecModel producer_model;
  CodecModel model;  // of the consumer
  CalibrationRecord calibration;
  CodecId codec = CodecId::kScd;
  CodecPrediction prediction;               // of the finest level
  std::vector<CodecPrediction> levels;      // of rd and kvtc, the finest first
  std::vector<ScdLayerDecoder> layers;      // of scd
  RdDecoderMaps rd;                         // of rd and kvtc
  LayerPlan plan;                           // of droidspeak
  std::vector<LoraDeltaDecoderLayer> lora;  // of lora_delta

  // What calibration decided of which layers are coded together and which the consumer computes; null where layers are
  // coded one by one whatever the consumer computes.
  const LayerPlan* calibrated_plan() const;
  bool operator==(const ArtifactDecoder&) const = default;
};

// Writes both parts and fills encoder.id and decoder.encoder_id. A directory that already holds the same encoder gets
// the decoder added (or replaced); one that holds another is refused with kAlreadyExists and left as it is.
void write_artifact(const std::filesystem::path& directory, ArtifactEncoder& encoder, ArtifactDecoder& decoder);
// The same with the decoders of several consumers.
void write_artifact(const std::filesystem::path& directory, ArtifactEncoder& encoder,
                    std::span<ArtifactDecoder> decoders);

// Adds a consumer: encoder/ is not touched, decoder.encoder_id must be its id (kFailedPrecondition).
void add_decoder(const std::filesystem::path& directory, const ArtifactDecoder& decoder);

// Throw Error: kNotFound (names what is missing and which consumers there are), kInvalidArgument or kDataLoss (file and
// field), kUnimplemented (a later format version).
ArtifactEncoder load_encoder(const std::filesystem::path& directory);
ArtifactDecoder load_decoder(const std::filesystem::path& directory, const std::string& consumer_weights);
std::vector<std::string> list_decoders(const std::filesystem::path& directory);  // sorted consumer fingerprints
// Of the tensors of its largest decoder, read from the files' sizes alone: 0 where there is none.
size_t largest_decoder_bytes(const std::filesystem::path& directory);

// FAILED_PRECONDITION naming each thing that differs and both values: "producer weights: artifact 1f2e..., serving
// 9ab0...".
Result<Done> check_compatible(const ArtifactEncoder& encoder, const ModelIdentity& producer);
Result<Done> check_compatible(const ArtifactDecoder& decoder, const ModelIdentity& producer,
                              const ModelIdentity& consumer);

}  // namespace scd
