// A folder below $TMPDIR (else /tmp) that goes with its owner.
#pragma once

#include <filesystem>
#include <string>

namespace scd {

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& name);  // throws Error where it cannot be made
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace scd
