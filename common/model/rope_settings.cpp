#include "common/model/rope_settings.h"

#include <cmath>
#include <numbers>

#include "common/base/error.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kDefaultTheta = 10000.0;

struct Source {
  const JsonFile& file;
  std::string field;  // rope_scaling or rope_parameters
  Json settings;      // its object; empty where absent

  double number(const std::string& name, double absent, bool required) const {
    const bool present = settings.contains(name) && !settings[name].is_null();
    if (!present && required) file.refuse(field, "expected a number `" + name + "` in it");
    if (!present) return absent;
    if (!settings[name].is_number()) file.refuse(field, "expected `" + name + "` to be a number");
    return settings[name].get<double>();
  }

  std::string type() const {
    for (const char* name : {"rope_type", "type"}) {
      if (settings.contains(name) && settings[name].is_string()) return settings[name].get<std::string>();
    }
    return "default";
  }
};

// Configurations that spell the settings both ways must mean the same by both.
void check_one_meaning(const JsonFile& config) {
  if (!config.has("rope_parameters") || !config.has("rope_scaling")) return;
  const Source newer{config, "rope_parameters", config.root()["rope_parameters"]};
  const Source older{config, "rope_scaling", config.root()["rope_scaling"]};
  if (!newer.settings.is_object() || !older.settings.is_object() || newer.type() == older.type()) return;
  config.refuse("rope_scaling", "type `" + older.type() + "`, but rope_parameters says `" + newer.type() + "`");
}

Source find_source(const JsonFile& config) {
  check_one_meaning(config);
  for (const char* field : {"rope_parameters", "rope_scaling"}) {
    if (!config.has(field)) continue;
    if (!config.root()[field].is_object()) config.refuse(field, "expected an object or null");
    for (const auto& [key, value] : config.root()[field].items()) {
      if (value.is_object()) config.refuse(field, "RoPE settings per layer type are not supported");
    }
    return {config, field, config.root()[field]};
  }
  return {config, "rope_scaling", Json::object()};
}

// The frequencies as the reference computes them: powers in FP32.
std::vector<float> base_frequencies(double theta, int32_t head_dim) {
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[i] = 1.0f / std::pow(static_cast<float>(theta), exponent);
  }
  return frequencies;
}

// Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
void scale_llama3(const Source& source, std::vector<float>& frequencies, Json& canonical) {
  const double factor = source.number("factor", 0, true);
  const double low = source.number("low_freq_factor", 0, true);
  const double high = source.number("high_freq_factor", 0, true);
  double original = source.number("original_max_position_embeddings", 0, false);
  if (original == 0) original = static_cast<double>(source.file.integer("original_max_position_embeddings", 0));
  if (!(factor >= 1) || !(low > 0) || !(high > low) || !(original >= 1)) {
    source.file.refuse(source.field,
                       "llama3 scaling expects factor >= 1, 0 < low_freq_factor < high_freq_factor and "
                       "original_max_position_embeddings >= 1");
  }
  for (float& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength > original / low) {
      frequency = static_cast<float>(frequency / factor);
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      frequency = static_cast<float>((1 - smooth) * frequency / factor + smooth * frequency);
    }
  }
  canonical["factor"] = factor;
  canonical["low_freq_factor"] = low;
  canonical["high_freq_factor"] = high;
  canonical["original_max_position_embeddings"] = original;
}

double read_theta(const JsonFile& config, const Source& source) {
  const double theta = source.number("rope_theta", config.number("rope_theta", kDefaultTheta), false);
  if (!(theta > 1) || !std::isfinite(theta)) config.refuse("rope_theta", "expected a number above 1");
  return theta;
}

}  // namespace

RopeSettings read_rope_settings(const JsonFile& config, int32_t head_dim) {
  const Source source = find_source(config);
  if (source.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0), false) != 1.0) {
    config.refuse(source.settings.contains("partial_rotary_factor") ? source.field : "partial_rotary_factor",
                  "rotating a part of the head is not supported");
  }
  RopeSettings settings;
  Json canonical = Json::object();
  const double theta = read_theta(config, source);
  auto& frequencies = settings.table.inverse_frequencies;
  frequencies = base_frequencies(theta, head_dim);
  const std::string type = source.type();
  if (type == "linear") {
    const double factor = source.number("factor", 0, true);
    if (!(factor > 0) || !std::isfinite(factor)) config.refuse(source.field, "expected `factor` above 0");
    for (float& frequency : frequencies) frequency = static_cast<float>(frequency / factor);
    canonical["factor"] = factor;
  } else if (type == "llama3") {
    scale_llama3(source, frequencies, canonical);
  } else if (type != "default") {
    config.refuse(source.field, "RoPE type `" + type + "` is not supported; expected default, linear or llama3");
  }
  canonical["rope_type"] = type;
  canonical["rope_theta"] = theta;
  settings.canonical = nlohmann::json(canonical).dump();
  return settings;
}

RopeSettings parse_rope_settings(const std::string& canonical, int32_t head_dim) {
  if (head_dim < 2 || head_dim % 2 != 0 || head_dim > 4096) {
    throw Error(ErrorCode::kInvalidArgument, "head_dim of RoPE settings is " + std::to_string(head_dim));
  }
  return read_rope_settings(JsonFile("RoPE settings", "{\"rope_parameters\":" + canonical + "}"), head_dim);
}

}  // namespace scd
