// A file mapped read-only.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace scd {

// Move-only. A file truncated by others while mapped ends the process (SIGBUS), as with every mapped file.
class MappedFile {
 public:
  // Throws Error NOT_FOUND or UNAVAILABLE naming the path.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace scd
