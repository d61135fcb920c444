#include "common/log/log.h"

#include <gtest/gtest.h>

#include <cmath>

namespace scd {
namespace {

TEST(Log, ATextLineIsKeysAndValuesWithQuotesWhereNeeded) {
  EXPECT_EQ(format_log_line(LogFormat::kText, LogLevel::kInfo, "prefill_done",
                            {{"request", uint64_t{17}}, {"ms", 12.3}, {"ok", true}, {"left", -2}, {"name", "a"}}),
            "info prefill_done request=17 ms=12.3 ok=true left=-2 name=a");
  EXPECT_EQ(format_log_line(LogFormat::kText, LogLevel::kWarning, "x",
                            {{"a", "two words"}, {"b", ""}, {"c", "q\"\n\\"}, {"d", "k=v"}}),
            R"(warning x a="two words" b="" c="q\"\n\\" d="k=v")");
}

TEST(Log, AJsonLineIsAnObjectEvenForControlCharactersAndNan) {
  EXPECT_EQ(format_log_line(LogFormat::kJson, LogLevel::kError, "x",
                            {{"a", "tab\there"}, {"b", std::nan("")}, {"c", false}, {"d", 5U}}),
            R"({"level":"error","event":"x","a":"tab\u0009here","b":null,"c":false,"d":5})");
}

TEST(Log, LevelsBelowTheConfiguredOneAreSilent) {
  configure_log({.level = LogLevel::kWarning});
  EXPECT_FALSE(log_enabled(LogLevel::kInfo));
  EXPECT_TRUE(log_enabled(LogLevel::kError));
  ::testing::internal::CaptureStderr();
  log_info("quiet");
  log_warning("loud", {{"request", 1}});
  const std::string written = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(written.find("quiet"), std::string::npos);
  EXPECT_NE(written.find("Z warning loud request=1\n"), std::string::npos);
  configure_log({});
}

}  // namespace
}  // namespace scd
