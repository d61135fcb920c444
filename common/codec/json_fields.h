// Typed reads of JSON fields; every failure is an Error kDataLoss that names the file and the field's path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace scd {

// One object of a JSON file, with where it stands ("producer.model").
class JsonFields {
 public:
  JsonFields(const nlohmann::json& object, std::filesystem::path file, std::string path = "");

  bool has(const char* name) const { return object_.contains(name); }
  JsonFields child(const char* name) const;
  std::vector<JsonFields> children(const char* name, size_t limit) const;  // of a list of objects
  int64_t integer(const char* name, int64_t low, int64_t high) const;
  uint64_t natural(const char* name) const;
  double number(const char* name) const;  // finite
  std::string text(const char* name) const;
  std::string hex_digest(const char* name) const;           // 64 lower-case hex digits
  std::string hex_digest_or_empty(const char* name) const;  // the same, or ""
  std::vector<float> floats(const char* name, size_t limit) const;
  std::vector<std::string> texts(const char* name, size_t limit) const;
  std::vector<int32_t> integers(const char* name, size_t limit) const;

 private:
  const nlohmann::json& at(const char* name) const;
  [[noreturn]] void refuse(const char* name, const std::string& what) const;

  const nlohmann::json& object_;
  std::filesystem::path file_;
  std::string path_;
};

// Parses a whole file's text; throws Error kDataLoss naming the file when it is not one JSON object.
nlohmann::json parse_json_object(const std::string& text, const std::filesystem::path& file);

}  // namespace scd
