// What the file system says of a path; where it cannot say, Error names the path and why.
#pragma once

#include <cstdint>
#include <filesystem>
#include <system_error>

#include "common/base/error.h"

namespace scd {

// INVALID_ARGUMENT with the path and the system's reason, where there is one.
inline void refuse_path(const std::filesystem::path& path, const std::error_code& reason) {
  if (reason) throw Error(ErrorCode::kInvalidArgument, path.string() + ": " + reason.message());
}

inline std::filesystem::file_status status_of(const std::filesystem::path& path) {
  std::error_code failed;
  const std::filesystem::file_status status = std::filesystem::status(path, failed);
  if (!std::filesystem::status_known(status)) refuse_path(path, failed);
  return status;
}

inline bool path_exists(const std::filesystem::path& path) { return std::filesystem::exists(status_of(path)); }
inline bool is_folder(const std::filesystem::path& path) { return std::filesystem::is_directory(status_of(path)); }

inline std::filesystem::file_time_type write_time_of(const std::filesystem::path& path) {
  std::error_code failed;
  const auto time = std::filesystem::last_write_time(path, failed);
  refuse_path(path, failed);
  return time;
}

inline std::uintmax_t bytes_of_file(const std::filesystem::path& path) {
  std::error_code failed;
  const std::uintmax_t bytes = std::filesystem::file_size(path, failed);
  refuse_path(path, failed);
  return bytes;
}

}  // namespace scd
