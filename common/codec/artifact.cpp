#include "common/codec/artifact.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "common/base/file_status.h"
#include "common/codec/artifact_format.h"
#include "common/codec/tensor_file.h"

namespace scd {
namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxHeaderFile = 16U << 20;
constexpr size_t kMaxTensorFile = size_t{8} << 30;

void write_file(const fs::path& file, const std::string& text) {
  std::ofstream stream(file, std::ios::binary);
  stream << text;
  stream.close();
  if (!stream) throw Error(ErrorCode::kUnavailable, file.string() + ": cannot be written");
}

void write_part(const fs::path& directory, const ArtifactFiles& files) {
  fs::create_directories(directory);
  write_file(directory / "codec.json", files.header);
  write_file(directory / "tensors.safetensors", files.tensors);
}

ArtifactFiles read_part(const fs::path& directory) {
  return {read_bounded_file(directory / "codec.json", kMaxHeaderFile),
          read_bounded_file(directory / "tensors.safetensors", kMaxTensorFile)};
}

// A name beside `target`, so that the rename stays on one file system.
fs::path temporary_beside(const fs::path& target) {
  return target.parent_path() / ("." + target.filename().string() + ".tmp-" + std::to_string(::getpid()));
}

// Renames a finished directory to its place; an older one there is moved aside first and removed last.
void put_in_place(const fs::path& finished, const fs::path& target) {
  const fs::path old = temporary_beside(target).string() + "-old";
  if (fs::exists(target)) fs::rename(target, old);
  fs::rename(finished, target);
  fs::remove_all(old);
}

fs::path without_trailing_slash(const fs::path& directory) {
  const fs::path normal = fs::absolute(directory).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

void write_decoder_part(const fs::path& artifact, const ArtifactDecoder& decoder) {
  const fs::path target = artifact / "decoders" / decoder.consumer.weights;
  const fs::path temporary = temporary_beside(target);
  fs::remove_all(temporary);
  write_part(temporary, serialize(decoder));
  put_in_place(temporary, target);
}

std::string abbreviated(const std::string& text) { return text.size() == 64 ? text.substr(0, 12) + "…" : text; }

void compare(const std::string& what, const std::string& artifact, const std::string& serving,
             std::string& differences) {
  if (artifact == serving) return;
  if (!differences.empty()) differences += "; ";
  differences += what + ": artifact " + (artifact.empty() ? "none" : abbreviated(artifact)) + ", serving " +
                 (serving.empty() ? "none" : abbreviated(serving));
}

void compare(const std::string& who, const ModelIdentity& artifact, const ModelIdentity& serving,
             std::string& differences) {
  compare(who + " weights", artifact.weights, serving.weights, differences);
  compare(who + " tokenizer", artifact.tokenizer, serving.tokenizer, differences);
  compare(who + " RoPE", artifact.rope, serving.rope, differences);
}

Result<Done> verdict(const std::string& differences) {
  if (differences.empty()) return Done{};
  return Failure{ErrorCode::kFailedPrecondition, "the codec artifact was calibrated for other models: " + differences};
}

}  // namespace

std::vector<int32_t> ArtifactEncoder::patch_layers() const {
  std::vector<int32_t> patched;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (layers[layer].is_patch()) patched.push_back(static_cast<int32_t>(layer));
  }
  return patched;
}

const LayerPlan* ArtifactDecoder::calibrated_plan() const {
  switch (codec) {
    case CodecId::kRd:
    case CodecId::kKvtc: return &rd.plan;
    case CodecId::kDroidSpeak: return &plan;
    default: return nullptr;
  }
}

void write_artifact(const fs::path& directory, ArtifactEncoder& encoder, ArtifactDecoder& decoder) {
  write_artifact(directory, encoder, std::span(&decoder, 1));
}

void write_artifact(const fs::path& directory, ArtifactEncoder& encoder, std::span<ArtifactDecoder> decoders) {
  const fs::path target = without_trailing_slash(directory);
  const ArtifactFiles files = serialize(encoder);
  encoder.id = digest_of(files);
  for (ArtifactDecoder& decoder : decoders) decoder.encoder_id = encoder.id;
  if (fs::exists(target / "encoder")) {
    if (digest_of(read_part(target / "encoder")) != encoder.id) {
      throw Error(ErrorCode::kAlreadyExists,
                  target.string() + " holds another encoder; choose another directory or remove it");
    }
    for (const ArtifactDecoder& decoder : decoders) write_decoder_part(target, decoder);
    return;
  }
  if (fs::exists(target) && !fs::is_empty(target)) {
    throw Error(ErrorCode::kAlreadyExists, target.string() + " is not empty and holds no codec artifact");
  }
  const fs::path temporary = temporary_beside(target);
  fs::remove_all(temporary);
  write_part(temporary / "encoder", files);
  for (const ArtifactDecoder& decoder : decoders) {
    write_part(temporary / "decoders" / decoder.consumer.weights, serialize(decoder));
  }
  put_in_place(temporary, target);
}

void add_decoder(const fs::path& directory, const ArtifactDecoder& decoder) {
  if (digest_of(read_part(directory / "encoder")) != decoder.encoder_id) {
    throw Error(ErrorCode::kFailedPrecondition, directory.string() + ": the decoder belongs to another encoder");
  }
  write_decoder_part(without_trailing_slash(directory), decoder);
}

ArtifactEncoder load_encoder(const fs::path& directory) {
  return parse_encoder(read_part(directory / "encoder"), directory / "encoder");
}

ArtifactDecoder load_decoder(const fs::path& directory, const std::string& consumer_weights) {
  const fs::path part = directory / "decoders" / consumer_weights;
  if (consumer_weights.size() != 64 || !is_folder(part)) {
    std::string known;
    for (const std::string& name : list_decoders(directory)) known += (known.empty() ? "" : ", ") + abbreviated(name);
    throw Error(ErrorCode::kNotFound, directory.string() + ": no decoder for the consumer " +
                                          abbreviated(consumer_weights) +
                                          "; there are: " + (known.empty() ? "none" : known));
  }
  return parse_decoder(read_part(part), part);
}

std::vector<std::string> list_decoders(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (fs::directory_iterator entry(directory / "decoders", ignored); entry != fs::directory_iterator();
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (name.size() == 64 && entry->is_directory(ignored)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

size_t largest_decoder_bytes(const fs::path& directory) {
  size_t most = 0;
  for (const std::string& name : list_decoders(directory)) {
    std::error_code missing;
    const auto bytes = fs::file_size(directory / "decoders" / name / "tensors.safetensors", missing);
    if (!missing) most = std::max(most, static_cast<size_t>(bytes));
  }
  return most;
}

Result<Done> check_compatible(const ArtifactEncoder& encoder, const ModelIdentity& producer) {
  std::string differences;
  compare("producer", encoder.producer, producer, differences);
  return verdict(differences);
}

Result<Done> check_compatible(const ArtifactDecoder& decoder, const ModelIdentity& producer,
                              const ModelIdentity& consumer) {
  std::string differences;
  compare("producer", decoder.producer, producer, differences);
  compare("consumer", decoder.consumer, consumer, differences);
  return verdict(differences);
}

}  // namespace scd
