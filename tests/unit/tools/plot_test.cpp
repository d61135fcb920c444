#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "common/base/error.h"
#include "tools/scd/panel_grid.h"
#include "tools/scd/plot_figures.h"
#include "tools/scd/plot_input.h"
#include "tools/scd/plot_page.h"

namespace scd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

constexpr char kHostileTask[] = "it's `touch SUBSTITUTED` <b> & $(x) {y}_z \\ \"q\"";

Json eval_row(const std::string& codec, int level, double bytes, double f1, double kl) {
  return {{"codec", codec},      {"level", level},       {"task", kHostileTask}, {"questions", 10},         {"f1", f1},
          {"f1_low", f1 - 0.05}, {"f1_high", f1 + 0.05}, {"kl_answer", kl},      {"bytes_per_token", bytes}};
}

Json latency_row(const std::string& codec, int level, double gbps, int tokens, double ms) {
  Json row = {{"codec", codec},          {"level", level},     {"task", "pareto"}, {"bandwidth_gbps", gbps},
              {"prompt_tokens", tokens}, {"regime", kHandoff}, {"ttft_ms", ms}};
  for (const TtftPart& part : kTtftParts) row[part.key] = ms / 8;
  return row;
}

class Plot : public ::testing::Test {
 protected:
  Plot() { std::filesystem::create_directories(folder_); }
  ~Plot() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const Json& rows) {
    const auto file = folder_ / name;
    std::ofstream(file) << Json{
        {"machine", {{"cpu", "<cpu>"}}}, {"commit", "c"}, {"command", "scd eval '&'"}, {"rows", rows}};
    return file;
  }
  std::vector<std::filesystem::path> good_files() {
    return {
        write("eval.json", Json::array({eval_row("oracle", 0, 0, 0.9, 0), eval_row("raw", 0, 20000, 0.8, 0.01),
                                        eval_row("rd@0", 0, 4000, 0.75, 0.02), eval_row("rd@1", 1, 2000, 0.6, 0.3)})),
        write("pareto.json", Json::array({latency_row("oracle", 0, 0.1, 64, 30), latency_row("raw", 0, 0.1, 64, 50),
                                          latency_row("rd", 0, 0.1, 64, 20), latency_row("rd", 1, 0.1, 64, 10),
                                          latency_row("raw", 0, 0, 32, 5)}))};
  }
  std::string refused(const Json& rows) {
    try {
      read_plot_input({write("bad.json", rows)});
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  static std::string text_of(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) /
      (std::string("scd_plot_") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(Plot, labels_are_single_quoted_and_end_nowhere_else) {
  EXPECT_EQ(gnuplot_quoted("it's `date` @m \"x\" \\n\n{a}_b\t"), "'it''s `date` @m \"x\" \\n {a}_b '");
  EXPECT_EQ(figure_file_name("../a b/é.json"), "___a_b____json");
}

TEST_F(Plot, plans_of_a_search_are_series_of_their_own) {
  const auto row = [](int level, const char* plan, double share, const char* variant) {
    return Json{{"codec", "rd"},
                {"level", level},
                {"task", "search"},
                {"plan", plan},
                {"native_share", share},
                {"variant", variant},
                {"bytes_per_token", 400 - level},
                {"kl_text", 0.1 + level}};
  };
  const PlotInput input = read_plot_input(
      {write("search.json", Json::array({row(0, "exact 0-4", 0.133, "full"), row(1, "exact 0-4", 0.133, "full"),
                                         row(0, "exact 0-4", 0.133, "no-metric"), row(0, "exact 0", 0, "full")}))});
  EXPECT_THAT(input.codecs,
              ElementsAre("13 % native: exact 0-4", "13 % native: exact 0-4, no-metric", "0 % native: exact 0"));
  EXPECT_EQ(input.quality.at("search").size(), 4u);
}

TEST_F(Plot, rows_of_eval_and_pareto_meet_by_codec_and_level) {
  const PlotInput input = read_plot_input(good_files());
  EXPECT_THAT(input.codecs, ElementsAre("oracle", "raw", "rd"));
  ASSERT_EQ(input.quality.at(kHostileTask).size(), 4u);
  EXPECT_EQ(input.quality.at(kHostileTask).back().codec, "rd");
  EXPECT_EQ(input.quality.at(kHostileTask).back().level, 1);
  ASSERT_EQ(input.latency.size(), 5u);
  EXPECT_EQ(input.latency[0].panel, "0.1 Gbit/s");
  EXPECT_EQ(input.latency[4].panel, "uncapped");
  std::vector<std::string> names;
  for (const Figure& figure : make_figures(input, 0)) names.push_back(figure.name.substr(0, figure.name.find('_')));
  EXPECT_THAT(names, ElementsAre("quality", "tradeoff", "ttft"));
  EXPECT_THROW(make_figures(input, 128), Error) << "no prompts of 128 tokens";
  EXPECT_NO_THROW(make_figures(input, 32));
}

TEST_F(Plot, a_missing_field_is_named_with_file_and_row) {
  const Json good = latency_row("raw", 0, 1, 64, 5);
  for (const std::string field : {"regime", "prompt_tokens", "wire_ms"}) {
    Json row = good;
    row.erase(field);
    const std::string said = refused(Json::array({good, row}));
    EXPECT_THAT(said, HasSubstr("bad.json: row 1: '" + field + "' is missing"));
    EXPECT_THAT(said, HasSubstr("scd bench"));
  }
  Json row = eval_row("raw", 0, 1, 0.5, 0.1);
  row.erase("bytes_per_token");
  EXPECT_THAT(refused(Json::array({row})), HasSubstr("row 0: 'bytes_per_token' is missing"));
  row = good;
  row["regime"] = "later";
  EXPECT_THAT(refused(Json::array({row})), HasSubstr("'later'"));
  row = good;
  row["ttft_ms"] = "fast";
  EXPECT_THAT(refused(Json::array({row})), HasSubstr("'ttft_ms' is missing or no number"));
  EXPECT_THAT(refused(Json::array()), HasSubstr("nothing to draw"));
}

TEST_F(Plot, layers_of_a_calibration_become_curves_with_gaps) {
  const Json row = {{"codec", "scd"},
                    {"layers", Json::array({{{"loss_key", 0.5}, {"loss_patch", nullptr}, {"kl_gain", 1}},
                                            {{"loss_key", 0.25}, {"loss_patch", 0.125}}})}};
  const PlotInput input = read_plot_input({write("calibration.json", Json::array({row}))});
  ASSERT_EQ(input.layers.size(), 2u);
  EXPECT_EQ(input.layers[0].name, "scd loss_key");
  EXPECT_THAT(input.layers[0].values, ElementsAre(0.5, 0.25));
  EXPECT_THAT(input.layers[1].values, ElementsAre(std::nullopt, 0.125));
  const std::vector<Figure> figures = make_figures(input, 0);
  ASSERT_EQ(figures.size(), 1u);
  EXPECT_THAT(figures[0].data, HasSubstr("0 NaN\n1 0.125\n"));
}

Json load_row(const std::string& codec, int level, const char* load, double at) {
  Json row = {{"codec", codec},         {"level", level},         {"task", "random tokens"}, {"load", load},
              {"ttft_p50_ms", 10 * at}, {"ttft_p99_ms", 30 * at}, {"itl_p99_ms", 5},         {"requests_per_s", at}};
  if (std::string(load) != "burst") row[std::string(load) == "closed" ? "concurrency" : "request_rate_per_s"] = at;
  return row;
}

TEST_F(Plot, loads_become_a_curve_for_each_codec_and_kind_of_load) {
  Json with_goal = load_row("rd", 2, "poisson", 1);
  with_goal["goodput_per_s"] = 0.5;
  const PlotInput input = read_plot_input(
      {write("load.json", Json::array({load_row("oracle", 0, "poisson", 4), load_row("oracle", 0, "poisson", 1),
                                       with_goal, load_row("raw", 0, "closed", 8), load_row("raw", 0, "burst", 1)}))});
  EXPECT_EQ(input.loads.size(), 4u) << "a burst has no place on an axis";
  const std::vector<Figure> figures = make_figures(input, 0);
  ASSERT_EQ(figures.size(), 2u);
  EXPECT_EQ(figures[0].name, "load_open_random_tokens");
  EXPECT_THAT(figures[0].data, HasSubstr("$block0 << END_OF_BLOCK\n1 10\n4 40\n")) << "rising loads";
  EXPECT_THAT(figures[0].commands, HasSubstr("'rd@2'"));
  EXPECT_THAT(figures[0].commands, HasSubstr("'Goodput'"));
  EXPECT_EQ(figures[1].name, "load_closed_random_tokens");
  EXPECT_THAT(figures[1].commands, Not(HasSubstr("'Goodput'")));
  Json row = load_row("raw", 0, "poisson", 1);
  row.erase("itl_p99_ms");
  EXPECT_THAT(refused(Json::array({row})), HasSubstr("'itl_p99_ms' is missing"));
}

TEST_F(Plot, the_front_holds_what_nothing_beats_in_both) {
  const std::vector<std::pair<double, double>> points{{5, 80}, {1, 50}, {3, 70}, {4, 60}, {3, 65}, {5, 80}, {9, 10}};
  EXPECT_THAT(pareto_front(points), ElementsAre(1, 2, 0));
  EXPECT_TRUE(pareto_front({}).empty());
}

TEST_F(Plot, an_axis_of_one_value_still_has_a_range) {
  AxisRange one, none;
  one.add(1000);
  EXPECT_EQ(one.linear(), "[900:1100]");
  EXPECT_EQ(one.log(), "[500:2000]");
  EXPECT_EQ(one.log_tics(), "(600, 800, 1000, 1500, 2000)");
  EXPECT_EQ(none.linear(), "[-1:1]");
}

TEST_F(Plot, inline_figures_share_no_names) {
  EXPECT_EQ(inline_svg("<?xml?><svg id=\"a\"><use xlink:href='#p'/><g id='p' fill='url(#q)'/></svg>", "x_"),
            "<svg id=\"x_a\"><use xlink:href='#x_p'/><g id='x_p' fill='url(#x_q)'/></svg>");
  EXPECT_EQ(html_escaped("<a href=\"x\">'&'"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;");
}

TEST_F(Plot, gnuplot_draws_hostile_labels_as_they_are_and_the_page_needs_no_other_file) {
  const PlotInput input = read_plot_input(good_files());
  const std::vector<Figure> figures = make_figures(input, 0);
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(folder_);  // where a substituted command would leave its file
  try {
    draw_figures(figures, folder_ / "out it's");
  } catch (const Error& error) {
    std::filesystem::current_path(here);
    if (error.code() == ErrorCode::kNotFound) GTEST_SKIP() << error.what();
    throw;
  }
  std::filesystem::current_path(here);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "SUBSTITUTED"));
  for (const Figure& figure : figures) {
    EXPECT_THAT(text_of(folder_ / "out it's" / (figure.name + ".png")), HasSubstr("PNG"));
    EXPECT_THAT(text_of(folder_ / "out it's" / (figure.name + ".svg")), HasSubstr("</svg>"));
  }
  write_plot_page(folder_ / "page.html", "<title>", input, figures, folder_ / "out it's");
  const std::string page = text_of(folder_ / "page.html");
  EXPECT_THAT(page, HasSubstr("&lt;title&gt;"));
  EXPECT_THAT(page, HasSubstr(html_escaped(kHostileTask)));
  EXPECT_THAT(page, HasSubstr("&lt;cpu&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
  EXPECT_EQ(page.find("<?xml"), std::string::npos);
}

// Titles of panels come from files too: bench pair's tasks.
TEST_F(Plot, a_hostile_panel_title_reaches_the_figure_as_text) {
  Json row = latency_row("raw", 0, 0, 64, 5);
  row.erase("bandwidth_gbps");
  row.erase("prompt_tokens");
  row["task"] = kHostileTask;
  const PlotInput input = read_plot_input({write("pair.json", Json::array({row}))});
  const std::vector<Figure> figures = make_figures(input, 0);
  ASSERT_EQ(figures.size(), 1u);
  EXPECT_THAT(figures[0].commands, HasSubstr("set title 'it''s `touch SUBSTITUTED` <b>"));
  try {
    draw_figures(figures, folder_);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) GTEST_SKIP() << error.what();
    throw;
  }
  EXPECT_THAT(text_of(folder_ / (figures[0].name + ".svg")),
              HasSubstr("it's `touch SUBSTITUTED` &lt;b> &amp; $(x) {y}_z \\ "));
}

TEST_F(Plot, a_figure_that_gnuplot_refuses_is_an_error) {
  const Figure broken{
      .name = "broken", .caption = "", .width = 100, .height = 100, .data = "", .commands = "plot nothing\n"};
  try {
    draw_figures({broken}, folder_);
    FAIL() << "accepted";
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kNotFound) GTEST_SKIP() << error.what();
    EXPECT_THAT(error.what(), HasSubstr("broken"));
  }
}

}  // namespace
}  // namespace scd
