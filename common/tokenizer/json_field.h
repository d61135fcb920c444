// Reading tokenizer.json: typed access where every error names the file and the field.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace scd {

// A view of one value and its place in the file; valid while the JsonText lives.
class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string path, const std::string& file)
      : value_(&value), path_(std::move(path)), file_(&file) {}

  bool is_null() const;
  bool is_zero() const;  // a number equal to 0
  bool is_string() const;
  bool is_array() const;
  bool is_object() const;

  // All of these throw Error kInvalidArgument where the value is missing or of another type.
  const std::string& string() const;
  bool boolean() const;
  int64_t integer(int64_t low, int64_t high) const;  // within [low, high]
  JsonField at(const std::string& key) const;
  size_t size() const;  // of an array
  JsonField at(size_t index) const;
  char32_t character() const;  // a string of exactly one character

  std::optional<JsonField> find(const std::string& key) const;  // nothing where absent or null
  bool boolean_or(const std::string& key, bool absent) const;
  void for_each(const std::function<void(const JsonField&)>& visit) const;  // elements of an array
  void for_each_member(const std::function<void(const std::string& key, const JsonField&)>& visit) const;

  // Throws kUnimplemented for the first key that is none of these: a feature this reader would silently ignore.
  void allow_only(std::initializer_list<std::string_view> keys) const;

  [[noreturn]] void fail(const std::string& what) const;       // kInvalidArgument
  [[noreturn]] void refuse(const std::string& feature) const;  // kUnimplemented
  void guard(const std::function<void()>& body) const;  // runs it; an Error it throws gets file and field in front

 private:
  std::string where() const;  // "tokenizer.json: model.merges[3]"
  const nlohmann::json* value_;
  std::string path_;
  const std::string* file_;
};

// A parsed file. Throws Error kInvalidArgument, with the byte offset, where the text is not JSON.
class JsonText {
 public:
  JsonText(std::string_view text, std::string name);
  ~JsonText();
  JsonField root() const;

 private:
  std::string name_;
  std::unique_ptr<const nlohmann::json> value_;
};

}  // namespace scd
