#include "common/log/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <array>
#include <cstdio>
#include <memory>
#include <type_traits>

namespace scd {
namespace {

constexpr std::array<std::string_view, 5> kLevelNames = {"trace", "debug", "info", "warning", "error"};

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace: return spdlog::level::trace;
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

struct Log {
  LogFormat format = LogFormat::kText;
  std::shared_ptr<spdlog::logger> logger;  // shared: spdlog's own way of holding loggers

  Log() { apply({}); }
  void apply(const LogOptions& options) {
    format = options.format;
    logger = std::make_shared<spdlog::logger>("scd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    logger->set_pattern(
        format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ",%v)" : "%Y-%m-%dT%H:%M:%S.%eZ %v",
        spdlog::pattern_time_type::utc);
    logger->set_level(to_spdlog(options.level));
    logger->flush_on(spdlog::level::trace);
  }
};

Log& log() {
  static Log instance;
  return instance;
}

void append_quoted(std::string& line, std::string_view text) {
  line += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (c == '\n') {
      line += "\\n";
    } else if (byte < 0x20 || byte == 0x7F) {
      std::array<char, 8> code{};
      std::snprintf(code.data(), code.size(), "\\u%04x", byte);
      line += code.data();
    } else {
      line += c;
    }
  }
  line += '"';
}

bool needs_quotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '=' || c == '\\' || c == 0x7F) return true;
  }
  return false;
}

void append_value(std::string& line, LogFormat format, const LogValue& value) {
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, bool>) {
          line += held ? "true" : "false";
        } else if constexpr (std::is_same_v<T, double>) {
          std::array<char, 32> digits{};
          std::snprintf(digits.data(), digits.size(), "%.6g", held);
          const std::string_view text = digits.data();
          const bool finite = text.find_first_of("ni") == std::string_view::npos;  // "nan", "inf"
          line += finite || format == LogFormat::kText ? text : "null";
        } else if constexpr (std::is_same_v<T, std::string_view>) {
          if (format == LogFormat::kJson || needs_quotes(held)) {
            append_quoted(line, held);
          } else {
            line += held;
          }
        } else {
          line += std::to_string(held);
        }
      },
      value.variant());
}

}  // namespace

void configure_log(const LogOptions& options) { log().apply(options); }

bool log_enabled(LogLevel level) { return log().logger->should_log(to_spdlog(level)); }

void log_event(LogLevel level, std::string_view event, LogFields fields) {
  const Log& to = log();
  if (!to.logger->should_log(to_spdlog(level))) return;
  const std::string line = format_log_line(to.format, level, event, fields);
  const std::string_view shown = to.format == LogFormat::kJson ? std::string_view(line).substr(1) : line;
  to.logger->log(to_spdlog(level), spdlog::string_view_t(shown.data(), shown.size()));
}

std::string format_log_line(LogFormat format, LogLevel level, std::string_view event, LogFields fields) {
  const bool json = format == LogFormat::kJson;
  std::string line = json ? "{\"level\":\"" : "";
  line += kLevelNames[static_cast<size_t>(level)];
  line += json ? "\",\"event\":" : " ";
  if (json) {
    append_quoted(line, event);
  } else {
    line += event;
  }
  for (const LogField& field : fields) {
    line += json ? "," : " ";
    if (json) {
      append_quoted(line, field.key);
    } else {
      line += field.key;
    }
    line += json ? ':' : '=';
    append_value(line, format, field.value);
  }
  if (json) line += '}';
  return line;
}

}  // namespace scd
