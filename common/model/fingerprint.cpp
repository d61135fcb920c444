#include "common/model/fingerprint.h"

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/base/error.h"
#include "common/base/file_status.h"
#include "common/base/sha256.h"
#include "common/model/checkpoint.h"
#include "common/model/json_file.h"
#include "common/model/lora.h"
#include "common/model/mapped_file.h"
#include "common/model/model_config.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kCacheName = ".scd_fingerprint.json";
constexpr int64_t kCacheVersion = 1;

std::string hex_of(std::string_view text) { return to_hex(sha256(text)); }

// Name, size and modification time of every weight file: the cache's key.
Json file_list(const Checkpoint& checkpoint) {
  Json files = Json::array();
  for (const SafetensorsFile& file : checkpoint.files()) {
    const auto modified = write_time_of(file.path()).time_since_epoch();
    files.push_back({file.path().filename().string(), bytes_of_file(file.path()),
                     std::chrono::duration_cast<std::chrono::nanoseconds>(modified).count()});
  }
  return files;
}

// A file written this instant could change again within the clock's tick; such a digest is not remembered.
bool settled(const Checkpoint& checkpoint) {
  const auto now = std::filesystem::file_time_type::clock::now();
  for (const SafetensorsFile& file : checkpoint.files()) {
    if (now - write_time_of(file.path()) < std::chrono::seconds(2)) return false;
  }
  return true;
}

// Sorted by name, whatever shard a tensor lies in. Tensors are hashed beside each other: one core would take longer
// than loading a model does.
std::string tensors_digest(const Checkpoint& checkpoint) {
  std::vector<const StoredTensor*> tensors;
  for (const auto& [name, entry] : checkpoint.tensors()) tensors.push_back(entry.tensor);
  std::vector<Sha256Digest> digests(tensors.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < tensors.size(); ++i) digests[i] = sha256(tensors[i]->bytes);
  Sha256 hash;
  size_t next = 0;
  for (const auto& [name, entry] : checkpoint.tensors()) {
    hash.update(name + "\n" + entry.tensor->dtype + " " + shape_text(entry.tensor->shape) + "\n" +
                to_hex(digests[next++]) + "\n");
  }
  return to_hex(hash.finish());
}

// Beside the checkpoint first, then the user's cache folder.
std::vector<std::filesystem::path> cache_places(const Checkpoint& checkpoint) {
  std::vector<std::filesystem::path> places{checkpoint.directory() / kCacheName};
  std::filesystem::path folder;
  if (const char* configured = std::getenv("SCD_CACHE"); configured != nullptr && *configured != '\0') {
    folder = configured;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    folder = std::filesystem::path(home) / ".cache" / "scd";
  } else {
    return places;
  }
  std::error_code failed;
  const auto absolute = std::filesystem::absolute(checkpoint.directory(), failed);
  if (failed) return places;
  const auto name = hex_of(absolute.string()).substr(0, 32) + ".json";
  places.push_back(folder / "fingerprints" / name);
  return places;
}

// A cache that cannot be read or does not fit is no error: the digest is computed.
std::string cached_digest(const std::filesystem::path& place, const Json& files) {
  std::ifstream in(place);
  if (!in) return {};
  const Json cache = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!cache.is_object() || !cache.contains("version") || cache["version"] != kCacheVersion) return {};
  if (!cache.contains("files") || cache["files"] != files) return {};
  if (!cache.contains("tensors") || !cache["tensors"].is_string()) return {};
  const auto digest = cache["tensors"].get<std::string>();
  return digest.size() == 64 ? digest : std::string{};
}

bool remember(const std::filesystem::path& place, const Json& files, const std::string& digest) {
  std::error_code failed;
  std::filesystem::create_directories(place.parent_path(), failed);
  const auto partial = place.string() + ".partial";
  {
    std::ofstream out(partial, std::ios::trunc);
    out << Json({{"version", kCacheVersion}, {"files", files}, {"tensors", digest}}).dump() << "\n";
    if (!out.flush()) return false;
  }
  std::filesystem::rename(partial, place, failed);
  return !failed;
}

std::string tensors_digest_cached(const Checkpoint& checkpoint) {
  const Json files = file_list(checkpoint);
  const auto places = cache_places(checkpoint);
  for (const auto& place : places) {
    if (auto digest = cached_digest(place, files); !digest.empty()) return digest;
  }
  const std::string digest = tensors_digest(checkpoint);
  if (settled(checkpoint)) {
    for (const auto& place : places) {
      if (remember(place, files, digest)) break;
    }
  }
  return digest;
}

// What changes the arithmetic beside the weights; spelled our way, so that two spellings of one model agree.
std::string settings_text(const ModelConfig& config) {
  const nlohmann::json settings{{"family", config.family},
                                {"layers", config.layers},
                                {"hidden", config.hidden},
                                {"intermediate", config.intermediate},
                                {"query_heads", config.query_heads},
                                {"kv_heads", config.kv_heads},
                                {"head_dim", config.head_dim},
                                {"vocab", config.vocab},
                                {"rms_epsilon", config.rms_epsilon},
                                {"sliding_window", config.sliding_window},
                                {"first_window_layer", config.first_window_layer},
                                {"qkv_bias", config.qkv_bias},
                                {"output_bias", config.output_bias},
                                {"mlp_bias", config.mlp_bias},
                                {"qk_norm", config.qk_norm},
                                {"tied_embeddings", config.tied_embeddings},
                                {"rope", config.rope_settings}};
  return settings.dump();
}

}  // namespace

ModelFingerprint fingerprint_model(const std::filesystem::path& directory,
                                   const std::optional<std::filesystem::path>& adapter) {
  const ModelConfig config = ModelConfig::from_directory(directory);
  std::string text = "scd model 1\n" + tensors_digest_cached(Checkpoint(directory)) + "\n";
  if (adapter) {
    const LoraAdapter lora(*adapter);
    text += tensors_digest_cached(lora.checkpoint()) + "\n" + lora.settings() + "\n";
  }
  text += settings_text(config);
  ModelFingerprint fingerprint{.weights = hex_of(text), .tokenizer = {}, .rope = config.rope_settings};
  const auto tokenizer = directory / "tokenizer.json";
  if (path_exists(tokenizer)) fingerprint.tokenizer = to_hex(sha256(MappedFile(tokenizer).bytes()));
  return fingerprint;
}

}  // namespace scd
