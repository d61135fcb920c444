// The two models of a pair in one process, with the codecs between them: what eval stands on.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/codec.h"
#include "common/model/model.h"
#include "common/tokenizer/tokenizer.h"

namespace scd {

// "DIR" or "NAME=DIR".
struct NamedArtifact {
  std::string name;  // what its codec is called here; empty: the codec's own name
  std::filesystem::path directory;
};
NamedArtifact parse_named_artifact(const std::string& text);

struct ModelPairOptions {
  std::filesystem::path producer;
  std::filesystem::path producer_adapter;  // empty: none
  std::filesystem::path consumer;
  std::filesystem::path consumer_adapter;  // empty: none
  std::vector<std::string> artifacts;      // NamedArtifact, of codecs that were calibrated; the first of a name counts
  std::string precision = "auto";          // auto, bf16 or fp32
  std::string device = "cpu";              // of both models, their caches and the codecs that work on a GPU
};

// With an adapter merged into it where one is given. Shows its progress.
std::shared_ptr<const Model> load_model(const std::filesystem::path& directory, const std::filesystem::path& adapter,
                                        const std::string& precision, const std::string& device);

// One way to hand the cache over. Without encoder and decoder: the oracle, the consumer's own prefill.
struct NamedCodec {
  std::string name;  // "rd@2": level 2
  std::unique_ptr<Encoder> encoder;
  std::unique_ptr<Decoder> decoder;
  int32_t level = 0;
  bool is_oracle() const { return encoder == nullptr; }
};

// Throws Error: what a checkpoint, an adapter or an artifact lacks, or what differs between artifact and models.
class ModelPair {
 public:
  explicit ModelPair(const ModelPairOptions& options);

  const Model& producer() const { return *producer_; }
  const Model& consumer() const { return *consumer_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  // A codec's name or that of an artifact, with or without "@level".
  NamedCodec make_codec(const std::string& name) const;

 private:
  struct Calibrated {
    ArtifactEncoder encoder;
    ArtifactDecoder decoder;
  };
  // The artifact that goes by the name, and fits the pair; none where no artifact does.
  std::optional<Calibrated> find_artifact(const std::string& name) const;

  ModelPairOptions options_;
  std::shared_ptr<const Model> producer_;  // shared: one and the same where both sides are the same checkpoint
  std::shared_ptr<const Model> consumer_;
  Tokenizer tokenizer_;
};

}  // namespace scd
