#include "common/codec/artifact_format.h"

#include "common/codec/json_fields.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/registry.h"
#include "common/codec/tensor_file.h"

namespace scd {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "scd-codec-artifact";
constexpr int64_t kMaxExtent = 1 << 20;

json to_json(const ModelIdentity& identity) {
  return {{"weights", identity.weights}, {"tokenizer", identity.tokenizer}, {"rope", identity.rope}};
}

json to_json(const CodecModel& model) {
  return {{"layers", model.layers},
          {"kv_heads", model.kv_heads},
          {"head_dim", model.head_dim},
          {"hidden", model.hidden},
          {"rope_attention_scale", model.rope.attention_scale},
          {"rope_inverse_frequencies", model.rope.inverse_frequencies}};
}

json to_json(const CalibrationRecord& record) {
  return {{"text_sha256", record.text_sha256},
          {"tokens", record.tokens},
          {"held_out_tokens", record.held_out_tokens},
          {"seed", record.seed},
          {"ridge", record.ridge}};
}

ModelIdentity read_identity(const JsonFields& fields) {
  return {fields.hex_digest("weights"), fields.hex_digest_or_empty("tokenizer"), fields.text("rope")};
}

CodecModel read_model(const JsonFields& fields) {
  CodecModel model;
  model.layers = static_cast<int32_t>(fields.integer("layers", 1, 4096));
  model.kv_heads = static_cast<int32_t>(fields.integer("kv_heads", 1, 4096));
  model.head_dim = static_cast<int32_t>(fields.integer("head_dim", 2, 4096));
  model.hidden = static_cast<int32_t>(fields.integer("hidden", 1, kMaxExtent));
  model.rope.attention_scale = static_cast<float>(fields.number("rope_attention_scale"));
  model.rope.inverse_frequencies = fields.floats("rope_inverse_frequencies", 2048);
  return model;
}

CalibrationRecord read_calibration(const JsonFields& fields) {
  return {fields.texts("text_sha256", 4096), fields.integer("tokens", 0, INT64_MAX),
          fields.integer("held_out_tokens", 0, INT64_MAX), fields.natural("seed"), fields.number("ridge")};
}

json common_header(const char* part, CodecId codec) {
  return {{"format", kFormat}, {"version", kArtifactVersion}, {"part", part}, {"codec", to_string(codec)}};
}

// Returns the codec.
CodecId check_header(const JsonFields& fields, const char* part, const std::filesystem::path& file) {
  const auto expect = [&](const char* field, std::string_view wanted) {
    const std::string found = fields.text(field);
    if (found == wanted) return;
    throw Error(ErrorCode::kDataLoss,
                file.string() + ": field " + field + " is \"" + found + "\", not \"" + std::string(wanted) + "\"");
  };
  expect("format", kFormat);
  const int64_t version = fields.integer("version", 0, INT32_MAX);
  if (version != kArtifactVersion) {
    throw Error(ErrorCode::kUnimplemented, file.string() + ": artifact version " + std::to_string(version) +
                                               "; this build reads version " + std::to_string(kArtifactVersion));
  }
  expect("part", part);
  const std::string name = fields.text("codec");
  const auto codec = codec_from_name(name);
  if (codec && needs_artifact(*codec)) return *codec;
  throw Error(ErrorCode::kDataLoss, file.string() + ": field codec is \"" + name + "\", which has no artifact");
}

std::string tensor_name(size_t layer, const char* what) { return "layers." + std::to_string(layer) + "." + what; }

std::vector<float> take_row(TensorMap& tensors, const std::string& name) {
  const auto node = tensors.extract(name);
  return node.empty() ? std::vector<float>{} : std::move(node.mapped().values);
}

DenseMatrix take(TensorMap& tensors, const std::string& name) {
  auto node = tensors.extract(name);
  return node.empty() ? DenseMatrix{} : std::move(node.mapped());
}

void put(TensorMap& tensors, const std::string& name, const DenseMatrix& matrix) {
  if (!matrix.empty()) tensors.emplace(name, matrix);
}

void put(TensorMap& tensors, const std::string& name, const std::vector<float>& row) {
  if (row.empty()) return;
  DenseMatrix matrix(1, static_cast<int64_t>(row.size()));
  matrix.values = row;
  tensors.emplace(name, std::move(matrix));
}

void put_network(TensorMap& tensors, const std::string& name, const SmallNetwork& network) {
  put(tensors, name + ".input", network.input);
  put(tensors, name + ".input_bias", network.input_bias);
  put(tensors, name + ".output", network.output);
  put(tensors, name + ".output_bias", network.output_bias);
}

// Those of its tensors that there are; what they are good for is checked where the codec is made.
SmallNetwork take_network(TensorMap& tensors, const std::string& name) {
  return {take(tensors, name + ".input"), take_row(tensors, name + ".input_bias"), take(tensors, name + ".output"),
          take_row(tensors, name + ".output_bias")};
}

void put_layer(TensorMap& tensors, size_t layer, const ScdLayerEncoder& maps) {
  put(tensors, tensor_name(layer, "key"), maps.key);
  put(tensors, tensor_name(layer, "value"), maps.value);
  put(tensors, tensor_name(layer, "hidden"), maps.hidden);
}

void put_layer(TensorMap& tensors, size_t layer, const ScdLayerDecoder& maps) {
  put(tensors, tensor_name(layer, "key"), maps.key);
  put(tensors, tensor_name(layer, "value"), maps.value);
  put(tensors, tensor_name(layer, "predictor.linear"), maps.predictor.linear);
  put(tensors, tensor_name(layer, "predictor.bias"), maps.predictor.bias);
  put_network(tensors, tensor_name(layer, "predictor"), maps.predictor.network);
}

void take_layer(TensorMap& tensors, size_t layer, ScdLayerEncoder& maps) {
  maps.key = take(tensors, tensor_name(layer, "key"));
  maps.value = take(tensors, tensor_name(layer, "value"));
  maps.hidden = take(tensors, tensor_name(layer, "hidden"));
}

void take_layer(TensorMap& tensors, size_t layer, ScdLayerDecoder& maps) {
  maps.key = take(tensors, tensor_name(layer, "key"));
  maps.value = take(tensors, tensor_name(layer, "value"));
  maps.predictor.linear = take(tensors, tensor_name(layer, "predictor.linear"));
  maps.predictor.bias = take_row(tensors, tensor_name(layer, "predictor.bias"));
  maps.predictor.network = take_network(tensors, tensor_name(layer, "predictor"));
}

void put_layer(TensorMap& tensors, size_t layer, const RdUnitEncoder& maps) {
  put(tensors, tensor_name(layer, "map"), maps.map);
  put(tensors, tensor_name(layer, "offset"), maps.offset);
}

void put_layer(TensorMap& tensors, size_t layer, const RdUnitDecoder& maps) {
  // By value of y, as round_columns_to_int8() leaves them.
  put(tensors, tensor_name(layer, "map"), transposed(maps.map));
  put(tensors, tensor_name(layer, "anchor_map"), transposed(maps.anchor_map));
  put(tensors, tensor_name(layer, "anchor_basis"), maps.anchor_basis);
  put(tensors, tensor_name(layer, "mean"), maps.mean);
  put_network(tensors, tensor_name(layer, "network"), maps.network);
}

void take_layer(TensorMap& tensors, size_t layer, RdUnitEncoder& maps) {
  maps.map = take(tensors, tensor_name(layer, "map"));
  maps.offset = take_row(tensors, tensor_name(layer, "offset"));
}

void take_layer(TensorMap& tensors, size_t layer, RdUnitDecoder& maps) {
  maps.map = transposed(take(tensors, tensor_name(layer, "map")));
  maps.anchor_map = transposed(take(tensors, tensor_name(layer, "anchor_map")));
  maps.anchor_basis = take(tensors, tensor_name(layer, "anchor_basis"));
  maps.mean = take_row(tensors, tensor_name(layer, "mean"));
  maps.network = take_network(tensors, tensor_name(layer, "network"));
}

template <class Maps>
void put_adapter_layer(TensorMap& tensors, size_t layer, const Maps& maps) {
  put(tensors, tensor_name(layer, "key"), maps.key);
  put(tensors, tensor_name(layer, "value"), maps.value);
}

void put_layer(TensorMap& tensors, size_t layer, const LoraDeltaEncoderLayer& maps) {
  put_adapter_layer(tensors, layer, maps);
}

void put_layer(TensorMap& tensors, size_t layer, const LoraDeltaDecoderLayer& maps) {
  put_adapter_layer(tensors, layer, maps);
}

template <class LayerMaps>
void put_layers(TensorMap& tensors, const std::vector<LayerMaps>& layers) {
  for (size_t layer = 0; layer < layers.size(); ++layer) put_layer(tensors, layer, layers[layer]);
}

template <class Maps>
void put_rd(TensorMap& tensors, const Maps& maps) {
  put_layers(tensors, maps.units);
  for (size_t unit = 0; unit < maps.quantiser.deviations.size(); ++unit) {
    put(tensors, tensor_name(unit, "deviations"), maps.quantiser.deviations[unit]);
  }
  put(tensors, "tables.frequencies", maps.quantiser.frequencies);
  put(tensors, "tables.shifts", maps.quantiser.shifts);
}

template <class Part>
std::string serialize_maps(const Part& part) {
  TensorMap tensors;
  switch (part.codec) {
    case CodecId::kScd: put_layers(tensors, part.layers); break;
    case CodecId::kLoraDelta: put_layers(tensors, part.lora); break;
    case CodecId::kDroidSpeak: break;  // its plan is all there is
    default: put_rd(tensors, part.rd);
  }
  return serialize_tensors(tensors);
}

[[noreturn]] void refuse_layer(const std::filesystem::path& file, size_t layer, const char* lacks) {
  throw Error(ErrorCode::kDataLoss, file.string() + ": layer " + std::to_string(layer) + " has " + lacks);
}

template <class Part>
void take_scd_layers(TensorMap& tensors, Part& part, const std::filesystem::path& file) {
  auto& layers = part.layers;
  layers.resize(static_cast<size_t>(part.model.layers));
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    take_layer(tensors, layer, layers[layer]);
    const bool has_reuse = !layers[layer].key.empty() && !layers[layer].value.empty();
    const bool has_some_reuse = !layers[layer].key.empty() || !layers[layer].value.empty();
    if (layers[layer].is_patch() ? has_some_reuse : !has_reuse) {
      refuse_layer(file, layer, "neither the tensors of Reuse (key, value) nor those of Patch alone");
    }
  }
}

// A layer that the adapter leaves as it is has no tensors.
template <class Part>
void take_adapter_layers(TensorMap& tensors, Part& part) {
  part.lora.resize(static_cast<size_t>(part.model.layers));
  for (size_t layer = 0; layer < part.lora.size(); ++layer) {
    part.lora[layer].key = take(tensors, tensor_name(layer, "key"));
    part.lora[layer].value = take(tensors, tensor_name(layer, "value"));
  }
}

// The plan comes from the header and says how many units there are.
template <class Maps>
void take_rd(TensorMap& tensors, Maps& maps, const std::filesystem::path& file) {
  maps.units.resize(maps.plan.units.size());
  for (size_t unit = 0; unit < maps.units.size(); ++unit) {
    take_layer(tensors, unit, maps.units[unit]);
    maps.quantiser.deviations.push_back(take_row(tensors, tensor_name(unit, "deviations")));
    if (maps.units[unit].map.empty()) refuse_layer(file, unit, "no map");
  }
  maps.quantiser.frequencies = take(tensors, "tables.frequencies");
  maps.quantiser.shifts = take_row(tensors, "tables.shifts");
}

void put_plan(json& header, const LayerPlan& plan) {
  header["exact_layers"] = plan.exact_layers;
  header["predicted"] = plan.predicted ? 1 : 0;
  header["units"] = json::array();
  for (const CodedUnit& unit : plan.units) {
    header["units"].push_back(
        {{"first_layer", unit.first_layer}, {"layers", unit.layers}, {"native", unit.residual ? 1 : 0}});
  }
}

LayerPlan read_plan(const JsonFields& fields) {
  LayerPlan plan;
  plan.exact_layers = static_cast<int32_t>(fields.integer("exact_layers", 0, 4096));
  plan.predicted = fields.integer("predicted", 0, 1) == 1;
  for (const JsonFields& unit : fields.children("units", 4096)) {
    plan.units.push_back({static_cast<int32_t>(unit.integer("first_layer", 0, 4096)),
                          static_cast<int32_t>(unit.integer("layers", 1, 4096)), unit.integer("native", 0, 1) == 1});
  }
  return plan;
}

// Of rd and kvtc between models of different depths.
void put_sources(json& header, const RdEncoderMaps& maps) {
  if (maps.sources.empty()) return;
  header["sources"] = json::array();
  for (const UnitSource& source : maps.sources) {
    header["sources"].push_back(
        {{"first_layer", source.first_layer}, {"layers", source.layers}, {"anchor", source.anchor}});
  }
}

std::vector<UnitSource> read_sources(const JsonFields& fields) {
  std::vector<UnitSource> sources;
  if (!fields.has("sources")) return sources;
  for (const JsonFields& source : fields.children("sources", 4096)) {
    sources.push_back({static_cast<int32_t>(source.integer("first_layer", 0, 4096)),
                       static_cast<int32_t>(source.integer("layers", 1, 4096)),
                       static_cast<int32_t>(source.integer("anchor", -1, 4096))});
  }
  return sources;
}

// What a codec's maps need beside their tensors: the plan, and the steps of levels.
template <class Part>
void put_codec_header(json& header, const Part& part) {
  if (part.codec == CodecId::kDroidSpeak) put_plan(header, part.plan);
  if (!has_levels(part.codec)) return;
  header["steps"] = part.rd.quantiser.steps;
  put_plan(header, part.rd.plan);
}

template <class Part>
void read_codec_header(const JsonFields& fields, Part& part) {
  if (part.codec == CodecId::kDroidSpeak) part.plan = read_plan(fields);
  if (!has_levels(part.codec)) return;
  part.rd.quantiser.steps = fields.floats("steps", kRdMaxLevels);
  part.rd.plan = read_plan(fields);
}

// Every layer has its maps, and nothing is left over. That shapes fit the model is checked where the codec is made.
template <class Part>
void parse_maps(const std::string& bytes, Part& part, const std::filesystem::path& file) {
  TensorMap tensors = parse_tensors(std::as_bytes(std::span(bytes)), file);
  switch (part.codec) {
    case CodecId::kScd: take_scd_layers(tensors, part, file); break;
    case CodecId::kLoraDelta: take_adapter_layers(tensors, part); break;
    case CodecId::kDroidSpeak: break;
    default: take_rd(tensors, part.rd, file);
  }
  if (!tensors.empty()) throw Error(ErrorCode::kDataLoss, file.string() + ": unknown tensor " + tensors.begin()->first);
}

json to_json(const CodecPrediction& prediction) {
  return {{"bytes_per_token", prediction.bytes_per_token},
          {"ratio_to_bf16", prediction.ratio_to_bf16},
          {"kl", prediction.kl},
          {"kl_upper", prediction.kl_upper}};
}

CodecPrediction read_prediction(const JsonFields& fields) {
  const double kl = fields.number("kl");
  // Artifacts made before bounds were taken have the mean alone.
  const double kl_upper = fields.has("kl_upper") ? fields.number("kl_upper") : kl;
  return {fields.number("bytes_per_token"), fields.number("ratio_to_bf16"), kl, kl_upper};
}

}  // namespace

Sha256Digest digest_of(const ArtifactFiles& files) {
  Sha256 hash;
  for (const std::string* file : {&files.header, &files.tensors}) {
    const uint64_t length = file->size();
    hash.update(std::as_bytes(std::span(&length, 1)));
    hash.update(*file);
  }
  return hash.finish();
}

ArtifactFiles serialize(const ArtifactEncoder& encoder) {
  json header = common_header("encoder", encoder.codec);
  header["producer"] = to_json(encoder.producer);
  header["model"] = to_json(encoder.model);
  header["calibration"] = to_json(encoder.calibration);
  header["fitted_with"] = encoder.fitted_with;
  if (!encoder.also_fitted_with.empty()) header["also_fitted_with"] = encoder.also_fitted_with;
  if (encoder.codec == CodecId::kScd) header["patch_layers"] = encoder.patch_layers();
  put_codec_header(header, encoder);
  put_sources(header, encoder.rd);
  return {header.dump(1) + "\n", serialize_maps(encoder)};
}

ArtifactFiles serialize(const ArtifactDecoder& decoder) {
  json header = common_header("decoder", decoder.codec);
  header["encoder_id"] = to_hex(decoder.encoder_id);
  header["producer"] = to_json(decoder.producer);
  header["consumer"] = to_json(decoder.consumer);
  header["producer_model"] = to_json(decoder.producer_model);
  header["model"] = to_json(decoder.model);
  header["calibration"] = to_json(decoder.calibration);
  header["prediction"] = to_json(decoder.prediction);
  put_codec_header(header, decoder);
  if (has_levels(decoder.codec)) {
    header["levels"] = json::array();
    for (const CodecPrediction& level : decoder.levels) header["levels"].push_back(to_json(level));
  }
  return {header.dump(1) + "\n", serialize_maps(decoder)};
}

ArtifactEncoder parse_encoder(const ArtifactFiles& files, const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "codec.json";
  const json parsed = parse_json_object(files.header, file);
  const JsonFields fields(parsed, file);
  ArtifactEncoder encoder;
  encoder.codec = check_header(fields, "encoder", file);
  encoder.id = digest_of(files);
  encoder.producer = read_identity(fields.child("producer"));
  encoder.model = read_model(fields.child("model"));
  encoder.calibration = read_calibration(fields.child("calibration"));
  encoder.fitted_with = fields.hex_digest("fitted_with");
  if (fields.has("also_fitted_with")) encoder.also_fitted_with = fields.texts("also_fitted_with", 4096);
  const std::filesystem::path tensors = directory / "tensors.safetensors";
  read_codec_header(fields, encoder);
  if (has_levels(encoder.codec)) encoder.rd.sources = read_sources(fields);
  parse_maps(files.tensors, encoder, tensors);
  if (encoder.codec == CodecId::kScd && fields.integers("patch_layers", 4096) != encoder.patch_layers()) {
    throw Error(ErrorCode::kDataLoss,
                file.string() + ": field patch_layers is not what " + tensors.string() + " holds");
  }
  return encoder;
}

ArtifactDecoder parse_decoder(const ArtifactFiles& files, const std::filesystem::path& directory) {
  const std::filesystem::path file = directory / "codec.json";
  const json parsed = parse_json_object(files.header, file);
  const JsonFields fields(parsed, file);
  ArtifactDecoder decoder;
  decoder.codec = check_header(fields, "decoder", file);
  const std::string id = fields.hex_digest("encoder_id");
  for (size_t i = 0; i < decoder.encoder_id.size(); ++i) {
    decoder.encoder_id[i] = static_cast<uint8_t>(std::stoi(id.substr(2 * i, 2), nullptr, 16));
  }
  decoder.producer = read_identity(fields.child("producer"));
  decoder.consumer = read_identity(fields.child("consumer"));
  decoder.producer_model = read_model(fields.child("producer_model"));
  decoder.model = read_model(fields.child("model"));
  decoder.calibration = read_calibration(fields.child("calibration"));
  decoder.prediction = read_prediction(fields.child("prediction"));
  read_codec_header(fields, decoder);
  parse_maps(files.tensors, decoder, directory / "tensors.safetensors");
  if (has_levels(decoder.codec)) {
    for (const JsonFields& level : fields.children("levels", kRdMaxLevels)) {
      decoder.levels.push_back(read_prediction(level));
    }
    if (decoder.levels.size() != decoder.rd.quantiser.steps.size()) {
      throw Error(ErrorCode::kDataLoss, file.string() + ": fields steps and levels differ in length");
    }
  }
  return decoder;
}

}  // namespace scd
