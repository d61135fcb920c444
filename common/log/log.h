// Structured logging to standard error: one line an event, `key=value` or JSON. Log once, where the outcome is decided;
// always with the request's id where there is one. Thread-safe; never throws.
//
//   log_info("prefill_done", {{"request", id}, {"ms", 12.3}});
//   -> 2026-01-02T03:04:05.678Z info prefill_done request=17 ms=12.3
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

#include "common/log/options.h"

namespace scd {

// A value as the format needs it; text is referred to, not copied.
class LogValue {
 public:
  LogValue(bool value) : value_(value) {}                                                // NOLINT: implicit by design
  LogValue(double value) : value_(value) {}                                              // NOLINT
  LogValue(std::signed_integral auto value) : value_(static_cast<int64_t>(value)) {}     // NOLINT
  LogValue(std::unsigned_integral auto value) : value_(static_cast<uint64_t>(value)) {}  // NOLINT
  LogValue(std::string_view value) : value_(value) {}                                    // NOLINT
  LogValue(const std::string& value) : value_(std::string_view(value)) {}                // NOLINT
  LogValue(const char* value) : value_(std::string_view(value)) {}                       // NOLINT

  const auto& variant() const { return value_; }

 private:
  std::variant<bool, double, int64_t, uint64_t, std::string_view> value_;
};

struct LogField {
  std::string_view key;  // snake_case; "request" for the request's id
  LogValue value;
};

// For the whole process; before threads start. Default: info, text.
void configure_log(const LogOptions& options);
bool log_enabled(LogLevel level);

using LogFields = std::initializer_list<LogField>;
void log_event(LogLevel level, std::string_view event, LogFields fields);

inline void log_trace(std::string_view event, LogFields fields = {}) { log_event(LogLevel::kTrace, event, fields); }
inline void log_debug(std::string_view event, LogFields fields = {}) { log_event(LogLevel::kDebug, event, fields); }
inline void log_info(std::string_view event, LogFields fields = {}) { log_event(LogLevel::kInfo, event, fields); }
inline void log_warning(std::string_view event, LogFields fields = {}) { log_event(LogLevel::kWarning, event, fields); }
inline void log_error(std::string_view event, LogFields fields = {}) { log_event(LogLevel::kError, event, fields); }

// How a line reads without its time: what the formats promise, and what tests compare.
std::string format_log_line(LogFormat format, LogLevel level, std::string_view event, LogFields fields);

}  // namespace scd
