#include "common/model/safetensors_writer.h"

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/model/safetensors.h"

namespace scd {

int64_t TensorSpec::elements() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::span<const TensorSpec> tensors)
    : path_(path), out_(path, std::ios::binary | std::ios::trunc) {
  if (!out_) throw Error(ErrorCode::kUnavailable, path.string() + ": cannot write");
  nlohmann::ordered_json header{{"__metadata__", {{"format", "pt"}}}};
  for (const TensorSpec& tensor : tensors) {
    header[tensor.name] = {{"dtype", safetensors_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {missing_, missing_ + tensor.bytes()}}};
    missing_ += tensor.bytes();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors begin aligned
  const uint64_t length = text.size();
  out_.write(reinterpret_cast<const char*>(&length), sizeof(length));
  out_ << text;
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  SCD_CHECK(bytes.size() <= missing_, "the header announced these bytes");
  out_.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!out_) throw Error(ErrorCode::kUnavailable, path_.string() + ": cannot write; is the disk full?");
  missing_ -= bytes.size();
}

void SafetensorsWriter::finish() {
  SCD_CHECK(missing_ == 0, "every announced tensor was written");
  if (!out_.flush()) throw Error(ErrorCode::kUnavailable, path_.string() + ": cannot write; is the disk full?");
}

}  // namespace scd
