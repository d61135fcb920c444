#include "tools/scd/temporary_folder.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>

#include "common/base/error.h"

namespace scd {

TemporaryFolder::TemporaryFolder(const std::string& name) {
  std::error_code failed;
  std::filesystem::path parent = std::filesystem::temp_directory_path(failed);
  std::string pattern = (failed ? std::filesystem::path("/tmp") : parent) / (name + ".XXXXXX");
  if (mkdtemp(pattern.data()) == nullptr) {
    throw Error(ErrorCode::kUnavailable, pattern + ": cannot make a temporary folder (" + std::strerror(errno) +
                                             "); set TMPDIR to a place with room");
  }
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace scd
