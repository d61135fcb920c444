#include "tools/scd/model_pair.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/base/error.h"
#include "common/codec/registry.h"
#include "common/device/open_device.h"
#include "common/log/progress.h"
#include "common/model/fingerprint.h"
#include "tools/scd/precision.h"

namespace scd {
namespace {

std::optional<std::filesystem::path> optional_path(const std::filesystem::path& path) {
  return path.empty() ? std::nullopt : std::optional(path);
}

ModelIdentity identity_of(const std::filesystem::path& directory, const std::filesystem::path& adapter) {
  const ModelFingerprint fingerprint = fingerprint_model(directory, optional_path(adapter));
  return {fingerprint.weights, fingerprint.tokenizer, fingerprint.rope};
}

int32_t parse_level(const std::string& text, int32_t levels) {
  int32_t level = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), level);
  if (error == std::errc{} && end == text.data() + text.size() && level >= 0 && level < levels) return level;
  throw Error(ErrorCode::kInvalidArgument,
              "level '" + text + "' of the codec: expected 0 to " + std::to_string(levels - 1));
}

CodecModel codec_model_of(const Model& model) {
  const ModelConfig& config = model.config();
  return {config.layers, config.kv_heads, config.head_dim, config.hidden, config.rope};
}

}  // namespace

NamedArtifact parse_named_artifact(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return {{}, text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::shared_ptr<const Model> load_model(const std::filesystem::path& directory, const std::filesystem::path& adapter,
                                        const std::string& precision, const std::string& device) {
  const kernels::Device on = open_device(device);
  Progress progress("loading " + directory.filename().string());
  return std::make_shared<const Model>(Model::load({.directory = directory,
                                                    .adapter = optional_path(adapter),
                                                    .precision = parse_precision(precision, on),
                                                    .device = on,
                                                    .progress = [&](double share) { progress.update(share); }}));
}

ModelPair::ModelPair(const ModelPairOptions& options)
    : options_(options), tokenizer_(Tokenizer::from_file(options.consumer / "tokenizer.json")) {
  producer_ = load_model(options.producer, options.producer_adapter, options.precision, options.device);
  const bool same = options.producer == options.consumer && options.producer_adapter == options.consumer_adapter;
  consumer_ =
      same ? producer_ : load_model(options.consumer, options.consumer_adapter, options.precision, options.device);
  const ModelIdentity producer = identity_of(options.producer, options.producer_adapter);
  const ModelIdentity consumer = identity_of(options.consumer, options.consumer_adapter);
  if (producer.tokenizer != consumer.tokenizer) {
    throw Error(ErrorCode::kFailedPrecondition, "producer and consumer have different tokenizers: " +
                                                    producer.tokenizer + " and " + consumer.tokenizer);
  }
}

std::optional<ModelPair::Calibrated> ModelPair::find_artifact(const std::string& name) const {
  const ModelIdentity producer = identity_of(options_.producer, options_.producer_adapter);
  const ModelIdentity consumer = identity_of(options_.consumer, options_.consumer_adapter);
  for (const std::string& text : options_.artifacts) {
    const NamedArtifact artifact = parse_named_artifact(text);
    ArtifactEncoder encoder = load_encoder(artifact.directory);
    if ((artifact.name.empty() ? to_string(encoder.codec) : artifact.name) != name) continue;
    (void)check_compatible(encoder, producer).value_or_throw();
    ArtifactDecoder decoder = load_decoder(artifact.directory, consumer.weights);
    (void)check_compatible(decoder, producer, consumer).value_or_throw();
    return Calibrated{std::move(encoder), std::move(decoder)};
  }
  return std::nullopt;
}

NamedCodec ModelPair::make_codec(const std::string& name) const {
  NamedCodec codec{.name = name, .encoder = nullptr, .decoder = nullptr};
  if (name == "oracle") return codec;
  const size_t at = std::min(name.find('@'), name.size());
  const std::string what = name.substr(0, at);
  const std::optional<Calibrated> artifact = find_artifact(what);
  const std::optional<CodecId> id = artifact ? artifact->encoder.codec : codec_from_name(what);
  if (!id) {
    std::string known = "oracle";
    for (const CodecId each : all_codecs()) known += ", " + std::string(to_string(each));
    throw Error(ErrorCode::kInvalidArgument,
                "codec '" + name + "': expected one of " + known + ", or NAME of --artifacts NAME=DIR");
  }
  if (needs_artifact(*id) && !artifact) {
    throw Error(ErrorCode::kInvalidArgument,
                "codec '" + name + "' needs --artifacts with one of it; make one with: scd calibrate --help");
  }
  const CodecModel producer = codec_model_of(*producer_), consumer = codec_model_of(*consumer_);
  codec.encoder = make_encoder(*id, producer, artifact ? &artifact->encoder : nullptr, producer_->device());
  if (at < name.size()) codec.level = parse_level(name.substr(at + 1), codec.encoder->levels());
  codec.decoder = make_decoder(*id, producer, consumer, artifact ? &artifact->decoder : nullptr,
                               {consumer_->device(), consumer_->precision()});
  return codec;
}

}  // namespace scd
