#include "common/model/checkpoint.h"

#include <algorithm>
#include <array>
#include <set>

#include "common/base/error.h"
#include "common/base/file_status.h"
#include "common/model/json_file.h"
#include "kernels/elementwise.h"

namespace scd {
namespace {

constexpr std::string_view kSingle = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

// tensor -> file name, as the index says; names that leave the directory are refused.
std::map<std::string, std::string> read_index(const std::filesystem::path& path) {
  const JsonFile index(path);
  if (!index.has("weight_map") || !index.root()["weight_map"].is_object()) {
    index.refuse("weight_map", "expected an object of tensor names and file names");
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : index.root()["weight_map"].items()) {
    if (!file.is_string() || std::filesystem::path(file.get<std::string>()).filename() != file.get<std::string>()) {
      throw Error(ErrorCode::kInvalidArgument,
                  path.string() + ": tensor `" + tensor + "`: expected the name of a file in the same folder");
    }
    files[tensor] = file.get<std::string>();
  }
  return files;
}

}  // namespace

Checkpoint::Checkpoint(const std::filesystem::path& directory) : directory_(directory) {
  if (!is_folder(directory)) {
    throw Error(ErrorCode::kNotFound, directory.string() + ": no such folder; expected a Hugging Face checkpoint");
  }
  if (path_exists(directory / kSingle)) {
    files_.emplace_back(directory / kSingle);
    add_file(0);
    return;
  }
  const auto index_path = directory / kIndex;
  if (!path_exists(index_path)) {
    throw Error(ErrorCode::kNotFound,
                directory.string() + ": neither " + std::string(kSingle) + " nor " + std::string(kIndex) + " is there");
  }
  const auto listed = read_index(index_path);
  std::set<std::string> names;
  for (const auto& [tensor, file] : listed) names.insert(file);
  files_.reserve(names.size());
  for (const auto& name : names) {
    files_.emplace_back(directory / name);
    add_file(files_.size() - 1);
  }
  for (const auto& [tensor, file] : listed) {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end() || file_of(found->second).filename() != file) {
      throw Error(ErrorCode::kNotFound, (directory / file).string() + ": tensor `" + tensor + "`, which " +
                                            index_path.filename().string() + " places there, is missing");
    }
  }
}

Checkpoint Checkpoint::of_file(const std::filesystem::path& file) {
  Checkpoint checkpoint;
  checkpoint.directory_ = file.parent_path();
  checkpoint.files_.emplace_back(file);
  checkpoint.add_file(0);
  return checkpoint;
}

void Checkpoint::add_file(size_t index) {
  const SafetensorsFile& file = files_[index];
  for (const auto& [name, tensor] : file.tensors()) {
    const auto [at, inserted] = tensors_.emplace(name, Entry{index, &tensor});
    if (!inserted) {
      throw Error(ErrorCode::kDataLoss, file.path().string() + ": tensor `" + name + "` is also in " +
                                            file_of(at->second).filename().string());
    }
  }
}

const StoredTensor& Checkpoint::require(const std::string& name, std::span<const int64_t> shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    const auto where = files_.size() == 1 ? files_[0].path() : directory_;
    throw Error(ErrorCode::kNotFound, where.string() + ": tensor `" + name + "` " + shape_text(shape) + " is missing");
  }
  const StoredTensor& tensor = *found->second.tensor;
  const std::string where = file_of(found->second).string() + ": tensor `" + name + "`: ";
  if (!float_dtype(tensor.dtype)) {
    throw Error(ErrorCode::kInvalidArgument, where + "dtype " + tensor.dtype + "; expected BF16, F16 or F32");
  }
  if (!std::ranges::equal(tensor.shape, shape)) {
    throw Error(ErrorCode::kInvalidArgument,
                where + "expected shape " + shape_text(shape) + ", found " + shape_text(tensor.shape));
  }
  return tensor;
}

kernels::ConstMatrix Checkpoint::matrix(const std::string& name, int64_t rows, int64_t columns) const {
  const std::array<int64_t, 2> shape{rows, columns};
  const StoredTensor& tensor = require(name, shape);
  return {tensor.bytes.data(), rows, columns, columns, *float_dtype(tensor.dtype)};
}

std::vector<float> Checkpoint::vector(const std::string& name, int64_t size) const {
  const StoredTensor& tensor = require(name, std::span(&size, 1));
  // A copy, since a file may place a tensor at any byte.
  std::vector<std::byte> aligned(tensor.bytes.begin(), tensor.bytes.end());
  std::vector<float> values(static_cast<size_t>(size));
  kernels::convert({aligned.data(), 1, size, size, *float_dtype(tensor.dtype)},
                   kernels::matrix(values.data(), 1, size));
  return values;
}

}  // namespace scd
