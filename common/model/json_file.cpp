#include "common/model/json_file.h"

#include <cmath>
#include <fstream>

#include "common/base/error.h"

namespace scd {
namespace {

// Far above any real one; keeps a mistaken path from filling the memory.
constexpr std::uintmax_t kMaxBytes = 64u << 20;

// Copying and printing a value recurse.
constexpr int kMaxDepth = 64;

template <class Source>
nlohmann::ordered_json parse_object(const std::filesystem::path& path, Source&& source) {
  try {
    const auto check_depth = [&path](int depth, nlohmann::ordered_json::parse_event_t, nlohmann::ordered_json&) {
      if (depth <= kMaxDepth) return true;
      throw Error(ErrorCode::kInvalidArgument,
                  path.string() + ": nested deeper than " + std::to_string(kMaxDepth) + " levels");
    };
    auto root = nlohmann::ordered_json::parse(source, check_depth);
    if (root.is_object()) return root;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kInvalidArgument, path.string() + ": not valid JSON: " + error.what());
  }
  throw Error(ErrorCode::kInvalidArgument, path.string() + ": expected a JSON object at the top");
}

nlohmann::ordered_json parse(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::error_code ignored;
  if (!in) throw Error(ErrorCode::kNotFound, path.string() + ": no such file, or not readable");
  if (std::filesystem::file_size(path, ignored) > kMaxBytes) {
    throw Error(ErrorCode::kInvalidArgument, path.string() + ": larger than 64 MiB; expected a small JSON file");
  }
  return parse_object(path, in);
}

}  // namespace

JsonFile::JsonFile(const std::filesystem::path& path) : path_(path), root_(parse(path)) {}

JsonFile::JsonFile(const std::filesystem::path& path, const std::string& text)
    : path_(path), root_(parse_object(path, text)) {}

bool JsonFile::has(const std::string& field) const { return root_.contains(field) && !root_[field].is_null(); }

int64_t JsonFile::integer(const std::string& field) const {
  if (!has(field)) throw Error(ErrorCode::kInvalidArgument, path_.string() + ": field `" + field + "` is missing");
  return integer(field, 0);
}

int64_t JsonFile::integer(const std::string& field, int64_t absent) const {
  if (!has(field)) return absent;
  const auto& value = root_[field];
  if (value.is_number_integer()) return value.get<int64_t>();
  // Some exporters write 8.0 for 8.
  if (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>() &&
      std::abs(value.get<double>()) < 9e15) {
    return static_cast<int64_t>(value.get<double>());
  }
  refuse(field, "expected an integer");
}

double JsonFile::number(const std::string& field, double absent) const {
  if (!has(field)) return absent;
  if (!root_[field].is_number()) refuse(field, "expected a number");
  return root_[field].get<double>();
}

bool JsonFile::boolean(const std::string& field, bool absent) const {
  if (!has(field)) return absent;
  if (!root_[field].is_boolean()) refuse(field, "expected true or false");
  return root_[field].get<bool>();
}

std::string JsonFile::text(const std::string& field, const std::string& absent) const {
  if (!has(field)) return absent;
  if (!root_[field].is_string()) refuse(field, "expected a string");
  return root_[field].get<std::string>();
}

void JsonFile::refuse(const std::string& field, const std::string& expected) const {
  std::string found = root_.contains(field) ? root_[field].dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)
                                            : std::string("nothing");
  constexpr size_t kShown = 120;
  if (found.size() > kShown) found = found.substr(0, kShown) + "...";
  throw Error(ErrorCode::kInvalidArgument, path_.string() + ": field `" + field + "` says " + found + "; " + expected);
}

}  // namespace scd
