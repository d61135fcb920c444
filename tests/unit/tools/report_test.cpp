#include "tools/scd/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "common/base/error.h"

namespace scd {
namespace {

TEST(Report, HoldsMachineCommitCommandAndRows) {
  Report report;
  report.add_row({{"phase", "prefill"}, {"total_ms", 1.5}});
  const auto json = report.to_json();
  EXPECT_TRUE(json["machine"].contains("cpu") && json["machine"].contains("cores") && json["machine"].contains("isa"));
  EXPECT_FALSE(json["commit"].get<std::string>().empty());
  EXPECT_FALSE(json["command"].get<std::string>().empty());
  ASSERT_EQ(json["rows"].size(), 1u);
  EXPECT_EQ(json["rows"][0]["total_ms"], 1.5);
}

TEST(Report, TellsTheGpusDriverAndClocksAndNullWithTheReasonWhereItDoesNotKnow) {
  const auto known =
      gpu_provenance("580.159.04", {.sm_mhz = 1755, .sm_max_mhz = 1980, .memory_mhz = 2619, .memory_max_mhz = 2619});
  EXPECT_EQ(known["gpu_driver"], "580.159.04");
  EXPECT_EQ(known["sm_clock_mhz"], 1755);
  EXPECT_EQ(known["sm_clock_max_mhz"], 1980);
  EXPECT_EQ(known["memory_clock_mhz"], 2619);
  EXPECT_EQ(known["memory_clock_max_mhz"], 2619);
  EXPECT_FALSE(known.contains("clocks_unknown"));
  const auto unknown = gpu_provenance("", {.problem = "no NVML"});
  for (const char* key :
       {"gpu_driver", "sm_clock_mhz", "sm_clock_max_mhz", "memory_clock_mhz", "memory_clock_max_mhz"}) {
    EXPECT_TRUE(unknown.contains(key) && unknown[key].is_null()) << key;
  }
  EXPECT_EQ(unknown["clocks_unknown"], "no NVML");
}

TEST(Report, EveryRowHasTheSameKeysAndNullWhereItDidNotMeasure) {
  Report report;
  report.add_row({{"codec", "raw"}, {"f1", 0.5}, {"regime", "handoff"}});
  report.add_row({{"task", "wiki"}, {"perplexity", 7.0}});
  const std::vector<std::string> keys = {"codec",       "level",           "task",         "questions", "f1",
                                         "exact_match", "same_answer",     "kl_question",  "kl_answer", "kl_p99",
                                         "perplexity",  "bytes_per_token", "ratio_to_bf16"};
  for (const auto& row : report.rows()) {
    std::vector<std::string> found;
    for (const auto& [key, value] : row.items()) found.push_back(key);
    found.resize(keys.size());
    EXPECT_EQ(found, keys);
  }
  EXPECT_EQ(report.rows()[0]["f1"], 0.5);
  EXPECT_EQ(report.rows()[0]["regime"], "handoff");
  EXPECT_TRUE(report.rows()[0]["perplexity"].is_null());
  EXPECT_TRUE(report.rows()[1]["codec"].is_null());
}

TEST(Report, WritesAFileAndNothingForAnEmptyPath) {
  Report report;
  report.write({});
  const std::filesystem::path path = std::filesystem::path(::testing::TempDir()) / "scd_report_test.json";
  report.write(path);
  std::ifstream in(path);
  EXPECT_TRUE(nlohmann::json::parse(in)["rows"].empty());
  std::filesystem::remove(path);
}

TEST(Report, FoldersOnTheWayAreMade) {
  const auto root = std::filesystem::path(::testing::TempDir()) / "scd_report_folders";
  std::filesystem::remove_all(root);
  Report().write(root / "a" / "b.json");
  EXPECT_TRUE(std::filesystem::exists(root / "a" / "b.json"));
  std::filesystem::remove_all(root);
}

TEST(Report, UnwritablePathIsNamed) {
  try {
    Report().write("/dev/null/at/all.json");
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("/dev/null/at/all.json"));
  }
}

TEST(TextTable, NumbersStandRightTextLeft) {
  TextTable table({"codec", "ms", "share"});
  table.add_row({"raw", "12.5", "99.1 %"});
  table.add_row({"größer", "3", "-"});
  std::ostringstream out;
  table.print(out);
  EXPECT_EQ(out.str(),
            "codec     ms   share\n"
            "------  ----  ------\n"
            "raw     12.5  99.1 %\n"
            "größer     3       -\n");
}

TEST(Format, RoundsAsAsked) {
  EXPECT_EQ(format_fixed(1.005, 1), "1.0");
  EXPECT_EQ(format_percent(0.614), "61.4 %");
}

}  // namespace
}  // namespace scd
