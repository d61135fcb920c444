#include "decode_server/model_loader.h"

#include <optional>
#include <string>
#include <utility>

#include "common/base/error.h"
#include "common/codec/registry.h"
#include "common/log/log.h"
#include "common/rebuild/model_shape.h"
#include "kernels/device.h"

namespace scd {
namespace {

std::optional<std::filesystem::path> given(const std::filesystem::path& path) {
  return path.empty() ? std::nullopt : std::optional(path);
}

// What one of the model's fields leads to; its errors name the field.
template <class Read>
auto read_field(const std::string& field, Read read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(error.code(), field + ": " + error.what());
  }
}

void check_base(const std::filesystem::path& directory, const std::filesystem::path& base) {
  const ModelFingerprint theirs = fingerprint_model(directory, std::nullopt);
  const ModelFingerprint ours = fingerprint_model(base, std::nullopt);
  if (theirs == ours) return;
  throw Error(ErrorCode::kFailedPrecondition, directory.string() + " holds another base (weights " + theirs.weights +
                                                  ", tokenizer " + theirs.tokenizer + ") than model.directory " +
                                                  base.string() + " (weights " + ours.weights + ", tokenizer " +
                                                  ours.tokenizer + "); a server has one base, leave it empty");
}

void check_codec(const CodecOptions& codec) {
  const auto configured = codec_from_number(static_cast<int>(codec.mode));
  if (!codec.artifact.empty() || !configured || !needs_artifact(*configured)) return;
  throw Error(ErrorCode::kFailedPrecondition, "artifact: codec.mode is " + std::string(to_string(*configured)) +
                                                  ", which needs one; name a directory made by scd calibrate");
}

CoderCosts coder_costs(const DecodeConfig& config, const ConsumerIdentity& identity) {
  const LayerPlan* plan = identity.artifact ? identity.artifact->calibrated_plan() : nullptr;
  const int32_t computed_here = plan != nullptr ? plan->exact_layers : config.codec.exact_layer0 ? 1 : 0;
  const bool on_gpu = config.device != "cpu";
  const ArtifactDecoder* artifact = !on_gpu && identity.artifact ? &*identity.artifact : nullptr;
  CoderCosts costs = measure_coders(identity.model, identity.model.layers - computed_here, artifact);
  if (on_gpu) costs.raw.seconds = 0;  // copies alone there; lossless stays on the host
  return costs;
}

}  // namespace

std::string name_of(const ModelOptions& options) {
  if (!options.name.empty()) return options.name;
  const auto directory = options.directory.has_filename() ? options.directory : options.directory.parent_path();
  return directory.filename().string();
}

std::vector<std::shared_ptr<ServedModel>> ModelLoader::load_configured() const {
  const DecodeConfig& config = args_.config;
  std::vector<std::shared_ptr<ServedModel>> models;
  for (const ServedModelOptions& options : config.models) models.push_back(load(options));
  if (config.models.empty()) {
    models.push_back(make({.name = name_of(config.model), .adapter = config.model.adapter}, false));
  }
  return models;
}

std::shared_ptr<ServedModel> ModelLoader::load(const ServedModelOptions& options) const {
  try {
    if (!options.directory.empty()) {
      read_field("directory", [&] { check_base(options.directory, args_.config.model.directory); });
    }
    auto model = make(options, !options.adapter.empty());
    log_info("model_loaded",
             {{"model", options.name},
              {"adapter", options.adapter.string()},
              {"adapter_kib", static_cast<int64_t>(model->adapter == nullptr ? 0 : model->adapter->bytes() >> 10)},
              {"weights", model->identity.fingerprint.weights}});
    return model;
  } catch (const Error& error) {
    throw Error(error.code(), "model '" + options.name + "': " + error.what());
  }
}

std::shared_ptr<ServedModel> ModelLoader::make(const ServedModelOptions& options, bool adapter_unmerged) const {
  const DecodeConfig& config = args_.config;
  const Model& model = args_.model;
  ConsumerIdentity identity;
  identity.fingerprint =
      read_field("adapter", [&] { return fingerprint_model(config.model.directory, given(options.adapter)); });
  identity.model = codec_model_of(model.config());
  identity.precision = model.precision() == kernels::DType::kF32 ? "fp32" : "bf16";
  identity.device = model.device();
  identity.adapter_unmerged = adapter_unmerged;
  CodecOptions codec = config.codec;
  if (!options.artifact.empty()) codec.artifact = options.artifact;
  check_codec(codec);
  if (!codec.artifact.empty()) {
    identity.artifact =
        read_field("artifact", [&] { return load_decoder(codec.artifact, identity.fingerprint.weights); });
    if (identity.artifact->calibration.made_up()) {
      log_warning("artifact_made_up", {{"artifact", codec.artifact.string()}, {"means", "answers mean nothing"}});
    }
  }
  std::unique_ptr<const Adapter> adapter;
  if (adapter_unmerged) {
    adapter = read_field("adapter", [&] { return std::make_unique<const Adapter>(model, options.adapter); });
    kernels::synchronize(model.device());  // other threads' queues read it
  }
  CoderCosts costs = coder_costs(config, identity);
  return std::make_shared<ServedModel>(ServedModel::Args{
      .identity = std::move(identity),
      .adapter = std::move(adapter),
      .codec = std::move(codec),
      .costs = std::move(costs),
      .validation = {.config = config,
                     .model = model.config(),
                     .tokenizer = args_.tokenizer,
                     .model_name = options.name,
                     .kv_pages = args_.kv_pages,
                     .pages_key = std::string(pages_key(model.device(), config.kv_cache.gpu_memory_fraction))},
      .prefixes = args_.prefixes});
}

}  // namespace scd
