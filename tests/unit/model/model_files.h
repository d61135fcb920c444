// Checkpoints on disk for tests: made small, then damaged on purpose.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/model/checkpoint.h"
#include "common/model/safetensors_writer.h"

namespace scd::testing {

// A folder of its own that goes with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "scd_test_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline void edit_json(const std::filesystem::path& path, const std::function<void(nlohmann::ordered_json&)>& edit) {
  auto json = nlohmann::ordered_json::parse(read_text(path));
  edit(json);
  write_text(path, json.dump());
}

struct OwnedTensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;
};

inline std::vector<OwnedTensor> read_tensors(const std::filesystem::path& file) {
  std::vector<OwnedTensor> tensors;
  const SafetensorsFile stored(file);
  for (const auto& [name, tensor] : stored.tensors()) {
    tensors.push_back({{name, *float_dtype(tensor.dtype), tensor.shape}, {tensor.bytes.begin(), tensor.bytes.end()}});
  }
  return tensors;
}

inline void write_tensors(const std::filesystem::path& file, std::span<const OwnedTensor> tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& tensor : tensors) specs.push_back(tensor.spec);
  SafetensorsWriter writer(file, specs);
  for (const auto& tensor : tensors) writer.write(tensor.bytes);
  writer.finish();
}

inline OwnedTensor tensor_f32(const std::string& name, std::vector<int64_t> shape, const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {{name, kernels::DType::kF32, std::move(shape)}, {bytes.begin(), bytes.end()}};
}

// Rewrites the checkpoint's one file.
inline void edit_tensors(const std::filesystem::path& directory,
                         const std::function<void(std::vector<OwnedTensor>&)>& edit) {
  auto tensors = read_tensors(directory / "model.safetensors");
  edit(tensors);
  write_tensors(directory / "model.safetensors", tensors);
}

inline OwnedTensor& named(std::vector<OwnedTensor>& tensors, const std::string& name) {
  for (auto& tensor : tensors) {
    if (tensor.spec.name == name) return tensor;
  }
  throw std::runtime_error("no tensor " + name);
}

// The message of the Error that `action` throws, with its code before it; empty where it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
  return {};
}

}  // namespace scd::testing
