#include "tools/scd/load_figures.h"

#include <algorithm>
#include <set>

#include "tools/scd/panel_grid.h"
#include "tools/scd/quality_figures.h"

namespace scd {
namespace {

struct Panel {
  const char* title;
  const char* axis;
  double LoadCurvePoint::*value;
  bool wide;  // logarithmic where values are far apart
};

constexpr Panel kTtftMedian{"TTFT p50", "ms", &LoadCurvePoint::ttft_p50_ms, true};
constexpr Panel kTtftTail{"TTFT p99", "ms", &LoadCurvePoint::ttft_p99_ms, true};
constexpr Panel kItlTail{"ITL p99", "ms", &LoadCurvePoint::itl_p99_ms, true};
constexpr Panel kThroughput{"Throughput", "answers/s", &LoadCurvePoint::requests_per_s, false};
constexpr Panel kGoodput{"Goodput", "answers/s within the SLO", &LoadCurvePoint::goodput_per_s, false};

std::string series_of(const LoadCurvePoint& point) {
  return point.level > 0 ? point.codec + "@" + std::to_string(point.level) : point.codec;
}

std::string draw_panel(PanelGrid& grid, const std::vector<LoadCurvePoint>& points,
                       const std::vector<std::string>& series, const Panel& panel, const std::string& load_axis) {
  AxisRange loads, values;
  std::string plots;
  for (size_t i = 0; i < series.size(); ++i) {
    std::string rows;
    for (const LoadCurvePoint& point : points) {
      if (series_of(point) != series[i]) continue;
      loads.add(point.load);
      values.add(point.*panel.value);
      rows += plot_number(point.load) + " " + plot_number(point.*panel.value) + "\n";
    }
    plots += (i == 0 ? "plot " : ", \\\n  ") + grid.add_data(rows) + " using 1:2 with linespoints " + series_style(i) +
             " notitle";
  }
  return "set title " + gnuplot_quoted(panel.title) + "\nset xlabel " + gnuplot_quoted(load_axis) + "\nset ylabel " +
         gnuplot_quoted(panel.axis) + "\nset grid\n" + (loads.wide() ? log_axis("x", loads) : linear_axis("x", loads)) +
         (panel.wide && values.wide() ? log_axis("y", values) : linear_axis("y", values)) + plots + "\n";
}

Figure load_figure(std::vector<LoadCurvePoint> points) {
  const bool closed = points.front().closed;
  const std::string task = points.front().task;
  std::ranges::stable_sort(points, {}, &LoadCurvePoint::load);
  std::vector<std::string> series;
  for (const LoadCurvePoint& point : points) {
    if (std::ranges::find(series, series_of(point)) == series.end()) series.push_back(series_of(point));
  }
  std::vector<Panel> panels{kTtftMedian, kTtftTail, kItlTail, kThroughput};
  if (std::ranges::any_of(points, &LoadCurvePoint::has_goodput)) panels.push_back(kGoodput);
  PanelGrid grid(3, 460, 380);
  for (const Panel& panel : panels) {
    grid.add_panel(draw_panel(grid, points, series, panel, closed ? "requests at once" : "requests/s"));
  }
  for (size_t i = 0; i < series.size(); ++i) {
    const std::string name = series[i] == "oracle" ? "oracle (decode server alone)" : series[i];
    grid.add_legend("NaN with linespoints " + series_style(i) + " title " + gnuplot_quoted(name));
  }
  return grid.finish(std::string("load_") + (closed ? "closed_" : "open_") + figure_file_name(task),
                     std::string("Under load (") + (closed ? "closed loop" : "Poisson arrivals") + "): " + task);
}

}  // namespace

std::vector<Figure> load_figures(const PlotInput& input) {
  std::set<std::pair<std::string, bool>> groups;
  for (const LoadCurvePoint& point : input.loads) groups.emplace(point.task, point.closed);
  std::vector<Figure> figures;
  for (const auto& [task, closed] : groups) {
    std::vector<LoadCurvePoint> points;
    std::ranges::copy_if(input.loads, std::back_inserter(points),
                         [&](const LoadCurvePoint& point) { return point.task == task && point.closed == closed; });
    figures.push_back(load_figure(std::move(points)));
  }
  return figures;
}

}  // namespace scd
