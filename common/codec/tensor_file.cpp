#include "common/codec/tensor_file.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "common/base/error.h"
#include "common/codec/payload.h"

namespace scd {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 16U << 20;
constexpr int64_t kMaxValues = int64_t{1} << 31;

bool exact_in_bf16(const DenseMatrix& matrix) {
  return std::all_of(matrix.values.begin(), matrix.values.end(),
                     [](float value) { return (std::bit_cast<uint32_t>(value) & 0xFFFFU) == 0; });
}

[[noreturn]] void refuse(const std::filesystem::path& file, const std::string& what) {
  throw Error(ErrorCode::kDataLoss, file.string() + ": " + what);
}

std::span<const std::byte> as_bytes_of(const DenseMatrix& matrix) { return std::as_bytes(std::span(matrix.values)); }

constexpr const char* kScaleSuffix = ".scale";

struct StoredShape {
  int64_t rows = 0;
  int64_t columns = 0;
  size_t value_bytes = 4;  // F32; 2: BF16; 1: I8, with a scale for each row in a tensor of its own
  size_t bytes() const { return static_cast<size_t>(rows * columns) * value_bytes; }
};

StoredShape read_shape(const json& entry, const std::filesystem::path& file, const std::string& name) {
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  if (dtype == entry.end() || !dtype->is_string()) refuse(file, "tensor " + name + ": no dtype");
  if (shape == entry.end() || !shape->is_array() || shape->size() != 2) {
    refuse(file, "tensor " + name + ": shape is not [rows, columns]");
  }
  StoredShape stored;
  const std::string type = dtype->get<std::string>();
  if (type != "F32" && type != "BF16" && type != "I8") {
    refuse(file, "tensor " + name + ": dtype " + type + "; F32, BF16 or I8 wanted");
  }
  stored.value_bytes = type == "F32" ? 4 : type == "BF16" ? 2 : 1;
  for (const json& extent : *shape) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() < 1 || extent.get<uint64_t>() > (uint64_t{1} << 24)) {
      refuse(file, "tensor " + name + ": an extent is not between 1 and 2^24");
    }
  }
  stored.rows = (*shape)[0].get<int64_t>();
  stored.columns = (*shape)[1].get<int64_t>();
  if (stored.rows * stored.columns > kMaxValues) refuse(file, "tensor " + name + ": more than 2^31 values");
  return stored;
}

DenseMatrix read_tensor(const StoredShape& stored, std::span<const std::byte> bytes) {
  DenseMatrix matrix(stored.rows, stored.columns);
  if (stored.value_bytes == 1) {
    std::transform(bytes.begin(), bytes.end(), matrix.values.begin(),
                   [](std::byte value) { return static_cast<float>(static_cast<int8_t>(value)); });
  } else if (stored.value_bytes == 2) {
    for (size_t i = 0; i < matrix.values.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, bytes.data() + 2 * i, sizeof half);
      matrix.values[i] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
    }
  } else {
    std::memcpy(matrix.values.data(), bytes.data(), bytes.size());
  }
  return matrix;
}

// The scales that make every row's values integers of 8 bits, [rows, 1]; empty where there are none. A row's largest
// value is 127 times its scale, as round_rows_to_int8() leaves it.
DenseMatrix int8_scales(const DenseMatrix& matrix) {
  DenseMatrix scales(matrix.rows, 1);
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const std::span values(matrix.view().row<float>(row), static_cast<size_t>(matrix.columns));
    float largest = 0;
    for (const float value : values) largest = std::max(largest, std::abs(value));
    const float scale = largest > 0 ? largest / 127.0f : 1.0f;
    scales.at(row, 0) = scale;
    const auto exact = [scale](float value) { return std::nearbyint(value / scale) * scale == value; };
    if (!std::all_of(values.begin(), values.end(), exact)) return {};
  }
  return scales;
}

// A matrix as the file has it.
struct NarrowTensor {
  const char* dtype = "F32";
  ByteBuffer values;   // where they are narrower than the matrix has them
  DenseMatrix scales;  // of I8
};

NarrowTensor narrowed(const DenseMatrix& matrix) {
  NarrowTensor narrow;
  if (exact_in_bf16(matrix)) {
    narrow.dtype = "BF16";
    append_bf16(matrix.values, narrow.values);
    return narrow;
  }
  if (matrix.rows > 1) narrow.scales = int8_scales(matrix);
  if (narrow.scales.empty()) return narrow;
  narrow.dtype = "I8";
  narrow.values.resize(matrix.values.size());
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const float* from = matrix.view().row<float>(row);
    std::byte* to = narrow.values.data() + row * matrix.columns;
    for (int64_t column = 0; column < matrix.columns; ++column) {
      to[column] = static_cast<std::byte>(static_cast<int8_t>(std::nearbyint(from[column] / narrow.scales.at(row, 0))));
    }
  }
  return narrow;
}

// The header's entries and the bytes of a file in the making.
struct FileInWork {
  json header = json::object();
  std::vector<std::span<const std::byte>> body;
  size_t body_bytes = 0;

  void add(const std::string& name, const DenseMatrix& matrix, const char* dtype, std::span<const std::byte> bytes) {
    const size_t begin = body_bytes;
    body.push_back(bytes);
    body_bytes += bytes.size();
    header[name] = {{"dtype", dtype}, {"shape", {matrix.rows, matrix.columns}}, {"data_offsets", {begin, body_bytes}}};
  }

  void add(const std::string& name, const DenseMatrix& matrix, const NarrowTensor& narrow) {
    add(name, matrix, narrow.dtype,
        narrow.values.empty() ? as_bytes_of(matrix) : std::span<const std::byte>(narrow.values));
    if (!narrow.scales.empty()) add(name + kScaleSuffix, narrow.scales, "F32", as_bytes_of(narrow.scales));
  }
};

// Integers become values; their scales are no tensors of their own.
void apply_scales(TensorMap& tensors, const std::vector<std::string>& integers, const std::filesystem::path& file) {
  for (const std::string& name : integers) {
    DenseMatrix& matrix = tensors.at(name);
    auto scales = tensors.extract(name + kScaleSuffix);
    if (scales.empty() || scales.mapped().rows != matrix.rows || scales.mapped().columns != 1) {
      refuse(file, "tensor " + name + ": no scale for each row");
    }
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int64_t column = 0; column < matrix.columns; ++column) matrix.at(row, column) *= scales.mapped().at(row, 0);
    }
  }
}

bool all_finite(const DenseMatrix& matrix) {
  return std::all_of(matrix.values.begin(), matrix.values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

std::string serialize_tensors(const TensorMap& tensors) {
  std::vector<const DenseMatrix*> matrices;
  for (const auto& [name, matrix] : tensors) matrices.push_back(&matrix);
  std::vector<NarrowTensor> narrow(matrices.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < matrices.size(); ++i) narrow[i] = narrowed(*matrices[i]);
  FileInWork work;
  size_t next = 0;
  for (const auto& [name, matrix] : tensors) work.add(name, matrix, narrow[next++]);
  std::string head = work.header.dump();
  head.resize((head.size() + 7) / 8 * 8, ' ');
  const uint64_t length = head.size();
  std::string file;
  file.reserve(sizeof length + head.size() + work.body_bytes);
  file.append(reinterpret_cast<const char*>(&length), sizeof length).append(head);
  for (const std::span<const std::byte> bytes : work.body) {
    file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return file;
}

TensorMap parse_tensors(std::span<const std::byte> bytes, const std::filesystem::path& file) {
  uint64_t length = 0;
  if (bytes.size() < sizeof length) refuse(file, "shorter than its header");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxHeaderBytes || length > bytes.size() - sizeof length) refuse(file, "header length out of range");
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + sizeof length;
  const json header = json::parse(text, text + length, nullptr, false);
  if (!header.is_object()) refuse(file, "header is not a JSON object");

  const auto body = bytes.subspan(sizeof length + length);
  TensorMap tensors;
  std::vector<std::string> integers;
  size_t covered = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    if (!entry.is_object()) refuse(file, "tensor " + name + ": not an object");
    const StoredShape stored = read_shape(entry, file, name);
    const auto offsets = entry.find("data_offsets");
    if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
        !(*offsets)[1].is_number_unsigned()) {
      refuse(file, "tensor " + name + ": no data_offsets");
    }
    const auto begin = (*offsets)[0].get<uint64_t>();
    const auto end = (*offsets)[1].get<uint64_t>();
    if (begin > end || end > body.size() || end - begin != stored.bytes()) {
      refuse(file, "tensor " + name + ": data_offsets do not fit its shape or the file");
    }
    covered += end - begin;
    DenseMatrix matrix = read_tensor(stored, body.subspan(begin, end - begin));
    if (!all_finite(matrix)) refuse(file, "tensor " + name + ": a value is not finite");
    if (stored.value_bytes == 1) integers.push_back(name);
    tensors.emplace(name, std::move(matrix));
  }
  apply_scales(tensors, integers, file);
  for (const std::string& name : integers) {
    if (!all_finite(tensors.at(name))) refuse(file, "tensor " + name + ": a value is not finite");
  }
  // Offsets may not overlap: with every byte covered exactly once the sum is the body.
  if (covered != body.size()) refuse(file, "its tensors do not cover its bytes");
  return tensors;
}

std::string read_bounded_file(const std::filesystem::path& file, size_t limit) {
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  if (!stream) throw Error(ErrorCode::kNotFound, file.string() + ": cannot be opened");
  const std::streamoff size = stream.tellg();
  if (size < 0 || static_cast<uint64_t>(size) > limit) {
    refuse(file, std::to_string(size) + " bytes; at most " + std::to_string(limit) + " are read");
  }
  std::string text(static_cast<size_t>(size), '\0');
  stream.seekg(0);
  if (!stream.read(text.data(), size)) refuse(file, "cannot be read to its end");
  return text;
}

}  // namespace scd
