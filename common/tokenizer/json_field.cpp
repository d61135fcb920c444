#include "common/tokenizer/json_field.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/tokenizer/unicode.h"

namespace scd {
namespace {

std::string joined(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : path + "." + std::string(key);
}

}  // namespace

bool JsonField::is_null() const { return value_->is_null(); }
bool JsonField::is_string() const { return value_->is_string(); }
bool JsonField::is_array() const { return value_->is_array(); }
bool JsonField::is_object() const { return value_->is_object(); }

const std::string& JsonField::string() const {
  if (!is_string()) fail("must be a string");
  return value_->get_ref<const std::string&>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail("must be true or false");
  return value_->get<bool>();
}

bool JsonField::is_zero() const { return value_->is_number() && value_->get<double>() == 0.0; }

int64_t JsonField::integer(int64_t low, int64_t high) const {
  if (value_->is_number_integer()) {
    const bool beyond = value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
    const int64_t number = beyond ? INT64_MAX : value_->get<int64_t>();
    if (!beyond && number >= low && number <= high) return number;
  }
  fail("must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
}

JsonField JsonField::at(const std::string& key) const {
  if (!is_object()) fail("must be an object");
  const auto found = value_->find(key);
  if (found == value_->end()) JsonField(*value_, joined(path_, key), *file_).fail("is missing");
  return JsonField(*found, joined(path_, key), *file_);
}

size_t JsonField::size() const {
  if (!is_array()) fail("must be an array");
  return value_->size();
}

JsonField JsonField::at(size_t index) const {
  if (index >= size()) fail("must have at least " + std::to_string(index + 1) + " elements");
  return JsonField((*value_)[index], path_ + "[" + std::to_string(index) + "]", *file_);
}

char32_t JsonField::character() const {
  const std::string& text = string();
  size_t at = 0;
  const char32_t first = text.empty() ? U'\0' : next_character(text, at);
  if (text.empty() || at != text.size()) fail("must be one character");
  return first;
}

std::optional<JsonField> JsonField::find(const std::string& key) const {
  if (!is_object()) fail("must be an object");
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonField(*found, joined(path_, key), *file_);
}

bool JsonField::boolean_or(const std::string& key, bool absent) const {
  const std::optional<JsonField> field = find(key);
  return field ? field->boolean() : absent;
}

void JsonField::for_each(const std::function<void(const JsonField&)>& visit) const {
  for (size_t i = 0, count = size(); i < count; ++i) visit(at(i));
}

void JsonField::for_each_member(const std::function<void(const std::string&, const JsonField&)>& visit) const {
  if (!is_object()) fail("must be an object");
  for (const auto& [key, value] : value_->items()) visit(key, JsonField(value, joined(path_, key), *file_));
}

void JsonField::allow_only(std::initializer_list<std::string_view> keys) const {
  for_each_member([&](const std::string& key, const JsonField& field) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) field.refuse("this setting");
  });
}

void JsonField::fail(const std::string& what) const { throw Error(ErrorCode::kInvalidArgument, where() + " " + what); }

void JsonField::refuse(const std::string& feature) const {
  throw Error(ErrorCode::kUnimplemented, where() + ": " + feature + " is not supported");
}

void JsonField::guard(const std::function<void()>& body) const {
  try {
    body();
  } catch (const Error& error) {
    throw Error(error.code(), where() + ": " + error.what());
  }
}

std::string JsonField::where() const { return *file_ + ": " + (path_.empty() ? "the file" : path_); }

JsonText::JsonText(std::string_view text, std::string name) : name_(std::move(name)) {
  try {
    value_ = std::make_unique<const nlohmann::json>(nlohmann::json::parse(text));
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(ErrorCode::kInvalidArgument,
                name_ + ": not JSON at byte " + std::to_string(error.byte) + ": " + error.what());
  }
}

JsonText::~JsonText() = default;

JsonField JsonText::root() const { return JsonField(*value_, "", name_); }

}  // namespace scd
