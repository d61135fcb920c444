#include "common/codec/json_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/base/error.h"

namespace scd {

using nlohmann::json;

JsonFields::JsonFields(const json& object, std::filesystem::path file, std::string path)
    : object_(object), file_(std::move(file)), path_(std::move(path)) {}

void JsonFields::refuse(const char* name, const std::string& what) const {
  throw Error(ErrorCode::kDataLoss, file_.string() + ": field " + path_ + name + " " + what);
}

const json& JsonFields::at(const char* name) const {
  const auto found = object_.find(name);
  if (found == object_.end()) refuse(name, "is missing");
  return *found;
}

JsonFields JsonFields::child(const char* name) const {
  const json& value = at(name);
  if (!value.is_object()) refuse(name, "is not an object");
  return {value, file_, path_ + name + "."};
}

std::vector<JsonFields> JsonFields::children(const char* name, size_t limit) const {
  const json& value = at(name);
  if (!value.is_array() || value.size() > limit) refuse(name, "is not a list of at most " + std::to_string(limit));
  std::vector<JsonFields> all;
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_object()) refuse(name, "is not a list of objects");
    all.emplace_back(value[i], file_, path_ + name + "[" + std::to_string(i) + "].");
  }
  return all;
}

int64_t JsonFields::integer(const char* name, int64_t low, int64_t high) const {
  const json& value = at(name);
  const bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX) &&
                    value.get<int64_t>() >= low && value.get<int64_t>() <= high;
  if (!fits) refuse(name, "is not an integer from " + std::to_string(low) + " to " + std::to_string(high));
  return value.get<int64_t>();
}

uint64_t JsonFields::natural(const char* name) const {
  const json& value = at(name);
  if (!value.is_number_unsigned()) refuse(name, "is not a natural number");
  return value.get<uint64_t>();
}

double JsonFields::number(const char* name) const {
  const json& value = at(name);
  if (!value.is_number() || !std::isfinite(value.get<double>())) refuse(name, "is not a number");
  return value.get<double>();
}

std::string JsonFields::text(const char* name) const {
  const json& value = at(name);
  if (!value.is_string()) refuse(name, "is not a text");
  return value.get<std::string>();
}

std::string JsonFields::hex_digest_or_empty(const char* name) const {
  std::string digits = text(name);
  if (digits.empty()) return digits;
  const bool is_hex = digits.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (digits.size() != 64 || !is_hex) refuse(name, "is not a SHA-256 of 64 hex digits");
  return digits;
}

std::string JsonFields::hex_digest(const char* name) const {
  std::string digits = hex_digest_or_empty(name);
  if (digits.empty()) refuse(name, "is empty");
  return digits;
}

std::vector<float> JsonFields::floats(const char* name, size_t limit) const {
  const json& values = at(name);
  if (!values.is_array() || values.size() > limit) {
    refuse(name, "is not a list of at most " + std::to_string(limit) + " numbers");
  }
  std::vector<float> out;
  for (const json& value : values) {
    if (!value.is_number() || !(std::abs(value.get<double>()) <= std::numeric_limits<float>::max())) {
      refuse(name, "holds something that is no number");
    }
    out.push_back(static_cast<float>(value.get<double>()));
  }
  return out;
}

std::vector<std::string> JsonFields::texts(const char* name, size_t limit) const {
  const json& values = at(name);
  if (!values.is_array() || values.size() > limit) {
    refuse(name, "is not a list of at most " + std::to_string(limit) + " texts");
  }
  std::vector<std::string> out;
  for (const json& value : values) {
    if (!value.is_string()) refuse(name, "holds something that is no text");
    out.push_back(value.get<std::string>());
  }
  return out;
}

std::vector<int32_t> JsonFields::integers(const char* name, size_t limit) const {
  const json& values = at(name);
  if (!values.is_array() || values.size() > limit) {
    refuse(name, "is not a list of at most " + std::to_string(limit) + " integers");
  }
  std::vector<int32_t> out;
  for (const json& value : values) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() > INT32_MAX) refuse(name, "holds something else");
    out.push_back(value.get<int32_t>());
  }
  return out;
}

json parse_json_object(const std::string& text, const std::filesystem::path& file) {
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) throw Error(ErrorCode::kDataLoss, file.string() + ": not a JSON object");
  return parsed;
}

}  // namespace scd
