// Where tests find real data that is not part of the project: $SCD_TEST_DATA, else ../shared/data beside the checkout.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

namespace scd::testing {

// The path below the data folder, or nothing where it does not exist: the caller must GTEST_SKIP() and say so.
inline std::optional<std::filesystem::path> test_data(const std::filesystem::path& relative) {
  const char* configured = std::getenv("SCD_TEST_DATA");
  const std::filesystem::path root = configured != nullptr ? std::filesystem::path(configured)
                                                           : std::filesystem::path(SCD_SOURCE_DIR) / "../shared/data";
  std::error_code ignored;
  if (!std::filesystem::exists(root / relative, ignored)) return std::nullopt;
  return std::filesystem::canonical(root / relative);
}

}  // namespace scd::testing
