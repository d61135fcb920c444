#include "tools/scd/pareto_codecs.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "common/base/error.h"
#include "common/codec/registry.h"
#include "common/model/model_config.h"
#include "tools/scd/calibration.h"

namespace scd {
namespace {

struct Source {
  CodecModel producer;
  std::vector<ArtifactEncoder> artifacts;
};

CodecId codec_id(const std::string& name) {
  if (const auto id = codec_from_name(name)) return *id;
  std::string known = "oracle";
  for (const CodecId each : all_codecs()) known += ", " + std::string(to_string(each));
  throw Error(ErrorCode::kInvalidArgument, "codec '" + name + "': expected one of " + known);
}

// All levels of the codec.
std::vector<ParetoCodec> levels_of(const std::string& name, const Source& source) {
  if (name == "oracle") return {{.name = name}};
  const CodecId id = codec_id(name);
  size_t index = 0;
  const ArtifactEncoder* artifact = nullptr;
  if (needs_artifact(id)) {
    const auto found = std::ranges::find(source.artifacts, id, &ArtifactEncoder::codec);
    if (found == source.artifacts.end()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "codec '" + name + "' needs --artifacts with one of it; make one with: scd calibrate --help");
    }
    artifact = &*found;
    index = static_cast<size_t>(found - source.artifacts.begin());
  }
  const int32_t count = make_encoder(id, source.producer, artifact)->levels();
  std::vector<ParetoCodec> levels;
  for (int32_t level = 0; level < count; ++level) {
    levels.push_back({.name = name, .level = level, .levels = count, .artifact = index});
  }
  return levels;
}

std::vector<ParetoCodec> expand(const std::string& asked, const Source& source) {
  const size_t at = asked.find('@');
  const std::vector<ParetoCodec> levels = levels_of(asked.substr(0, at), source);
  if (at == std::string::npos) return levels;
  size_t level = levels.size();
  const auto [end, error] = std::from_chars(asked.data() + at + 1, asked.data() + asked.size(), level);
  if (error == std::errc{} && end == asked.data() + asked.size() && level < levels.size()) return {levels[level]};
  throw Error(ErrorCode::kInvalidArgument,
              "codec '" + asked + "': expected a level from 0 to " + std::to_string(levels.size() - 1));
}

std::vector<std::string> everything(const Source& source) {
  std::vector<std::string> names;
  for (const CodecId id : all_codecs()) {
    const bool there = std::ranges::count(source.artifacts, id, &ArtifactEncoder::codec) > 0;
    if (!needs_artifact(id) || there) names.emplace_back(to_string(id));
  }
  return names;
}

}  // namespace

std::vector<ParetoCodec> choose_codecs(const std::vector<std::string>& asked,
                                       const std::vector<std::filesystem::path>& artifacts,
                                       const std::filesystem::path& producer) {
  Source source{codec_model_of(ModelConfig::from_directory(producer)), {}};
  for (const auto& directory : artifacts) source.artifacts.push_back(load_encoder(directory));
  std::vector<std::string> names{"oracle", "raw"};
  const std::vector<std::string> more = asked.empty() ? everything(source) : asked;
  names.insert(names.end(), more.begin(), more.end());
  std::vector<ParetoCodec> chosen;
  for (const std::string& name : names) {
    for (const ParetoCodec& codec : expand(name, source)) {
      const auto same = [&](const ParetoCodec& other) { return other.request() == codec.request(); };
      if (std::ranges::none_of(chosen, same)) chosen.push_back(codec);
    }
  }
  return chosen;
}

}  // namespace scd
