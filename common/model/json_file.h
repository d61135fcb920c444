// JSON files of checkpoints and adapters, read with errors that name file and field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace scd {

// An object at the top; keys keep the file's order. A null value reads as an absent field everywhere here.
class JsonFile {
 public:
  // Throws Error: NOT_FOUND, or INVALID_ARGUMENT naming the file where it is no JSON object.
  explicit JsonFile(const std::filesystem::path& path);
  // Text that came from elsewhere, named `path` in errors.
  JsonFile(const std::filesystem::path& path, const std::string& text);

  const std::filesystem::path& path() const { return path_; }
  const nlohmann::ordered_json& root() const { return root_; }
  bool has(const std::string& field) const;

  // The typed value of a field; the default where it is absent. Without a default an absent field is an error.
  int64_t integer(const std::string& field) const;
  int64_t integer(const std::string& field, int64_t absent) const;
  double number(const std::string& field, double absent) const;
  bool boolean(const std::string& field, bool absent) const;
  std::string text(const std::string& field, const std::string& absent) const;

  // INVALID_ARGUMENT: "FILE: field `F` says VALUE; EXPECTED".
  [[noreturn]] void refuse(const std::string& field, const std::string& expected) const;

 private:
  std::filesystem::path path_;
  nlohmann::ordered_json root_;
};

}  // namespace scd
