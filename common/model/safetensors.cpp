#include "common/model/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/error.h"

namespace scd {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the cap of the reference implementation

struct DTypeSize {
  std::string_view name;
  uint64_t bytes;
};
constexpr std::array<DTypeSize, 14> kDTypes{{{"F64", 8},
                                             {"F32", 4},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"F8_E5M2", 1},
                                             {"F8_E4M3", 1},
                                             {"I64", 8},
                                             {"U64", 8},
                                             {"I32", 4},
                                             {"U32", 4},
                                             {"I16", 2},
                                             {"U16", 2},
                                             {"I8", 1},
                                             {"U8", 1}}};

uint64_t element_bytes(std::string_view dtype) {
  if (dtype == "BOOL") return 1;
  const auto* found = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& d) { return d.name == dtype; });
  return found == kDTypes.end() ? 0 : found->bytes;
}

[[noreturn]] void damaged(const std::filesystem::path& path, const std::string& what) {
  throw Error(ErrorCode::kDataLoss, path.string() + ": " + what);
}

// Duplicate names would let two readers see two different models.
nlohmann::json parse_header(const std::filesystem::path& path, std::string_view text) {
  std::set<std::string> names;
  std::string duplicate;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) {
      const auto name = parsed.get<std::string>();
      if (!names.insert(name).second) duplicate = name;
    }
    return true;
  };
  try {
    auto header = nlohmann::json::parse(text.begin(), text.end(), watch);
    if (!duplicate.empty()) damaged(path, "tensor `" + duplicate + "` is listed twice");
    if (!header.is_object()) damaged(path, "the header is not a JSON object");
    return header;
  } catch (const nlohmann::json::exception& error) {
    damaged(path, std::string("the header is not valid JSON: ") + error.what());
  }
}

struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
  const std::string* name = nullptr;
};

// Fields of one header entry, checked for type only.
Range read_entry(const std::filesystem::path& path, const std::string& name, const nlohmann::json& entry,
                 StoredTensor& tensor) {
  const auto unsigned_list = [](const nlohmann::json& list) {
    return list.is_array() &&
           std::all_of(list.begin(), list.end(), [](const auto& v) { return v.is_number_unsigned(); });
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !unsigned_list(entry["shape"]) || !entry.contains("data_offsets") || !unsigned_list(entry["data_offsets"]) ||
      entry["data_offsets"].size() != 2) {
    damaged(path, "tensor `" + name + "`: expected dtype, shape and two data_offsets");
  }
  tensor.dtype = entry["dtype"].get<std::string>();
  for (const auto& extent : entry["shape"]) {
    const auto value = extent.get<uint64_t>();
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      damaged(path, "tensor `" + name + "`: shape");
    tensor.shape.push_back(static_cast<int64_t>(value));
  }
  return {entry["data_offsets"][0].get<uint64_t>(), entry["data_offsets"][1].get<uint64_t>(), nullptr};
}

// dtype x shape in bytes; refuses unknown dtypes and products that overflow.
uint64_t expected_bytes(const std::filesystem::path& path, const std::string& name, const StoredTensor& tensor) {
  uint64_t bytes = element_bytes(tensor.dtype);
  if (bytes == 0) damaged(path, "tensor `" + name + "`: unknown dtype " + tensor.dtype);
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes)) {
      damaged(path, "tensor `" + name + "`: shape " + shape_text(tensor.shape) + " is too large");
    }
  }
  return bytes;
}

void check_contiguous(const std::filesystem::path& path, std::vector<Range> ranges, uint64_t data_bytes) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t position = 0;
  for (const Range& range : ranges) {
    if (range.begin != position) {
      damaged(path, "tensor `" + *range.name + "` begins at byte " + std::to_string(range.begin) + " of the data, " +
                        (range.begin < position ? "inside another tensor" : "leaving a gap") + "; expected " +
                        std::to_string(position));
    }
    position = range.end;
  }
  if (position != data_bytes) {
    damaged(path, std::to_string(data_bytes - position) + " bytes follow the last tensor");
  }
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const auto bytes = file_.bytes();
  if (bytes.size() < kLengthBytes) damaged(path, "truncated: " + std::to_string(bytes.size()) + " bytes, no header");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes > kMaxHeaderBytes) {
    damaged(path, "not a safetensors file: it claims a header of " + std::to_string(header_bytes) + " bytes");
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    damaged(path, "truncated: the header takes " + std::to_string(header_bytes) + " bytes, the file has " +
                      std::to_string(bytes.size() - kLengthBytes) + " left");
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  const auto header = parse_header(path, {text, header_bytes});
  const auto data = bytes.subspan(kLengthBytes + header_bytes);

  std::vector<Range> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    StoredTensor tensor;
    Range range = read_entry(path, name, entry, tensor);
    if (range.begin > range.end) damaged(path, "tensor `" + name + "`: its data_offsets run backwards");
    if (range.end > data.size()) {
      damaged(path, "truncated: tensor `" + name + "` ends at byte " + std::to_string(range.end) +
                        " of the data, the file holds " + std::to_string(data.size()));
    }
    if (const uint64_t expected = expected_bytes(path, name, tensor); expected != range.end - range.begin) {
      damaged(path, "tensor `" + name + "`: " + tensor.dtype + " " + shape_text(tensor.shape) + " takes " +
                        std::to_string(expected) + " bytes, its data_offsets span " +
                        std::to_string(range.end - range.begin));
    }
    tensor.bytes = data.subspan(range.begin, range.end - range.begin);
    range.name = &tensors_.emplace(name, std::move(tensor)).first->first;
    ranges.push_back(range);
  }
  check_contiguous(path, std::move(ranges), data.size());
}

std::optional<kernels::DType> float_dtype(std::string_view name) {
  if (name == "F32") return kernels::DType::kF32;
  if (name == "BF16") return kernels::DType::kBF16;
  if (name == "F16") return kernels::DType::kF16;
  return std::nullopt;
}

std::string_view safetensors_name(kernels::DType dtype) {
  switch (dtype) {
    case kernels::DType::kF32: return "F32";
    case kernels::DType::kBF16: return "BF16";
    case kernels::DType::kF16: return "F16";
  }
  return "?";
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace scd
