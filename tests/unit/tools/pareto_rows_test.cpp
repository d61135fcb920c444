#include "tools/scd/pareto_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/base/error.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

ParetoPoint point(const std::string& codec, int32_t level, uint64_t bytes, std::vector<double> times) {
  ParetoPoint made;
  made.codec = codec;
  made.level = level;
  made.bandwidth_gbps = 1;
  made.prompt_tokens = 256;
  made.regime = kHandoff;
  for (const double ms : times) {
    TtftSample sample{.ttft_ms = ms};
    sample.parts_ms[3] = ms / 2;  // wire
    made.samples.push_back(sample);
  }
  made.wire_bytes = bytes;
  made.handover_tokens = 100;
  made.ratio_to_bf16 = bytes > 0 ? 2 : 0;
  return made;
}

Json refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(ParetoRows, hold_medians_and_ratios_to_raw_and_oracle_of_the_same_place) {
  std::vector<ParetoPoint> points{point("oracle", 0, 0, {40, 50, 60}), point("raw", 0, 8000, {20, 90, 30}),
                                  point("rd", 2, 1000, {10, 12, 100})};
  ParetoPoint elsewhere = point("raw", 0, 4000, {1});
  elsewhere.bandwidth_gbps = 10;
  points.insert(points.begin(), elsewhere);
  const Json rows = pareto_rows(points);
  ASSERT_EQ(rows.size(), 4u);
  const Json& rd = rows[3];
  EXPECT_EQ(rd["codec"], "rd");
  EXPECT_EQ(rd["level"], 2);
  EXPECT_EQ(rd["runs"], 3);
  EXPECT_EQ(rd["ttft_ms"], 12.0);
  EXPECT_EQ(rd["ttft_min_ms"], 10.0);
  EXPECT_EQ(rd["ttft_max_ms"], 100.0);
  EXPECT_EQ(rd["wire_ms"], 6.0);
  EXPECT_EQ(rd["queue_ms"], 0.0);
  EXPECT_EQ(rd["bytes_per_token"], 10.0);
  EXPECT_EQ(rd["wire_ratio_to_raw"], 8.0);
  EXPECT_DOUBLE_EQ(rd["ttft_ratio_to_raw"].get<double>(), 12.0 / 30);
  EXPECT_DOUBLE_EQ(rd["ttft_ratio_to_oracle"].get<double>(), 12.0 / 50);
  const Json& oracle = rows[1];
  EXPECT_EQ(oracle["bytes_per_token"], 0.0);
  EXPECT_TRUE(oracle["wire_ratio_to_raw"].is_null());
  EXPECT_TRUE(oracle["ratio_to_bf16"].is_null());
  EXPECT_TRUE(rows[0]["ttft_ratio_to_oracle"].is_null()) << "no oracle at 10 Gbit/s";
}

TEST(ParetoRows, a_codec_is_known_by_name_and_level_however_the_row_says_it) {
  EXPECT_EQ(codec_of({{"codec", "rd@12"}, {"level", 12}}), "rd");
  EXPECT_EQ(level_of({{"codec", "rd@12"}, {"level", 0}}), 12);
  EXPECT_EQ(level_of({{"codec", "rd"}, {"level", 3}}), 3);
  EXPECT_EQ(level_of({{"codec", "raw"}, {"level", nullptr}}), 0);
}

TEST(ParetoRows, quality_is_joined_by_codec_and_level) {
  Json rows = pareto_rows({point("raw", 0, 8000, {20}), point("rd", 1, 1000, {10}), point("rd", 2, 500, {9})});
  const Json quality =
      Json::array({{{"codec", "rd@1"}, {"level", 1}, {"task", "squad"}, {"f1", 0.7}, {"kl_answer", 0.2}},
                   {{"codec", "raw"}, {"level", 0}, {"task", "squad"}, {"f1", 0.9}},
                   {{"codec", "rd"}, {"level", 2}, {"task", "wiki"}, {"kl_text", 0.1}}});
  EXPECT_EQ(join_quality(rows, quality, ""), 2u);
  EXPECT_EQ(rows[0]["f1"], 0.9);
  EXPECT_EQ(rows[1]["f1"], 0.7);
  EXPECT_EQ(rows[1]["kl_answer"], 0.2);
  EXPECT_EQ(rows[1]["quality_task"], "squad");
  EXPECT_FALSE(rows[2].contains("f1"));
}

TEST(ParetoRows, one_of_several_tasks_must_be_named) {
  Json rows = pareto_rows({point("raw", 0, 8000, {20})});
  const Json quality = Json::array({{{"codec", "raw"}, {"level", 0}, {"task", "a"}, {"f1", 0.9}},
                                    {{"codec", "raw"}, {"level", 0}, {"task", "b"}, {"f1", 0.8}}});
  EXPECT_THAT(refused([&] { join_quality(rows, quality, ""); }).get<std::string>(), HasSubstr("a, b"));
  EXPECT_THAT(refused([&] { join_quality(rows, quality, "c"); }).get<std::string>(), HasSubstr("a, b"));
  EXPECT_THAT(refused([&] { join_quality(rows, Json::array(), ""); }).get<std::string>(), HasSubstr("scd eval"));
  EXPECT_EQ(join_quality(rows, quality, "b"), 1u);
  EXPECT_EQ(rows[0]["f1"], 0.8);
}

TEST(ParetoRows, csv_quotes_what_would_end_a_field_and_leaves_null_empty) {
  const Json rows =
      Json::array({{{"codec", "raw, \"plain\""}, {"f1", nullptr}, {"level", 0}}, {{"codec", "x"}, {"new", 1.5}}});
  EXPECT_EQ(to_csv(rows), "codec,f1,level,new\r\n\"raw, \"\"plain\"\"\",,0,\r\nx,,,1.5\r\n");
}

TEST(ParetoRows, a_file_that_is_no_report_is_named) {
  const auto file = std::filesystem::path(::testing::TempDir()) / "scd_report_to_read.json";
  const auto said = [&](const std::string& text) {
    std::ofstream(file) << text;
    return refused([&] { read_report(file); }).get<std::string>();
  };
  EXPECT_THAT(said("{\"rows\": "), HasSubstr("scd_report_to_read.json: not JSON"));
  EXPECT_THAT(said("[1]"), HasSubstr("has no array 'rows'"));
  EXPECT_THAT(said("{\"rows\": [{\"codec\": \"raw\"}, {\"f1\": 1}]}"), HasSubstr("row 1 is no object with a 'codec'"));
  EXPECT_EQ(said("{\"rows\": [{\"codec\": \"raw\"}, {\"codec\": null}]}"), "accepted");
  std::filesystem::remove(file);
  EXPECT_THAT(refused([&] { read_report(file); }).get<std::string>(), HasSubstr("cannot be read"));
  EXPECT_THAT(refused([&] { read_report(::testing::TempDir()); }).get<std::string>(), HasSubstr("cannot be read"));
}

}  // namespace
}  // namespace scd
