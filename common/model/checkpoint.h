// A Hugging Face checkpoint on disk: model.safetensors, or the shards that model.safetensors.index.json lists.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/model/safetensors.h"

namespace scd {

class Checkpoint {
 public:
  struct Entry {
    size_t file = 0;  // index in files()
    const StoredTensor* tensor = nullptr;
  };

  // Throws Error naming the missing or damaged file, or the tensor that the index and the shards disagree about.
  explicit Checkpoint(const std::filesystem::path& directory);
  // A single file of any name: an adapter.
  static Checkpoint of_file(const std::filesystem::path& file);

  const std::filesystem::path& directory() const { return directory_; }
  const std::map<std::string, Entry>& tensors() const { return tensors_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const std::filesystem::path& file_of(const Entry& entry) const { return files_[entry.file].path(); }
  bool has(const std::string& name) const { return tensors_.contains(name); }

  // The tensor, checked to be F32, F16 or BF16 and of this shape. Errors name file and tensor: missing (NOT_FOUND),
  // wrong dtype or shape, expected against found (INVALID_ARGUMENT).
  const StoredTensor& require(const std::string& name, std::span<const int64_t> shape) const;
  // The same for [rows, columns], as ops take it.
  kernels::ConstMatrix matrix(const std::string& name, int64_t rows, int64_t columns) const;
  // The same for [size], in FP32.
  std::vector<float> vector(const std::string& name, int64_t size) const;

 private:
  Checkpoint() = default;
  void add_file(size_t index);
  std::filesystem::path directory_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Entry> tensors_;
};

}  // namespace scd
