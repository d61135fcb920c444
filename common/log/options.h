// What a user sets about logging; common/config describes it in YAML under `log`.
#pragma once

#include <cstdint>

namespace scd {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kText, kJson };

struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
};

}  // namespace scd
