// Safetensors files (huggingface/safetensors, format of 2022-09): u64 header length, JSON header, tensor bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/mapped_file.h"
#include "kernels/matrix.h"

namespace scd {

struct StoredTensor {
  std::string dtype;  // as spelled in the file: "BF16", "F32", "I64", ...
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // in the mapping
};

// A mapped file whose header has been checked: offsets in range, no overlap, no gap, dtype x shape == byte range.
class SafetensorsFile {
 public:
  // Throws Error: NOT_FOUND, or DATA_LOSS naming the file, the tensor and what is wrong with it.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }

 private:
  MappedFile file_;
  std::map<std::string, StoredTensor> tensors_;
};

// The dtype our ops know, or nothing.
std::optional<kernels::DType> float_dtype(std::string_view safetensors_name);
std::string_view safetensors_name(kernels::DType dtype);
std::string shape_text(std::span<const int64_t> shape);  // "[320, 64]"

}  // namespace scd
