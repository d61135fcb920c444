#include "tools/scd/latency_figures.h"

#include <algorithm>
#include <map>

#include "tools/scd/plot_figures.h"
#include "tools/scd/quality_figures.h"

namespace scd {
namespace {

std::vector<std::string> panels_of(std::span<const LatencyPoint> points) {
  std::vector<std::string> panels;
  for (const LatencyPoint& point : points) {
    if (std::ranges::find(panels, point.panel) == panels.end()) panels.push_back(point.panel);
  }
  return panels;
}

std::string setting_of(const LatencyPoint& point) {
  return std::string(point.regime == kHandoff ? "hand-off" : "prefill in path") +
         (point.prompt_tokens > 0 ? ", prompts of " + std::to_string(point.prompt_tokens) + " tokens" : "");
}

std::string suffix_of(const LatencyPoint& point) { return point.regime + (point.prompt_tokens > 0 ? "" : "_pair"); }

// A latency point with what the task says of its codec and level.
struct Rated {
  const LatencyPoint* point;
  double quality;  // as drawn
};

bool by_f1(const std::vector<QualityPoint>& quality) {
  return std::ranges::any_of(quality, [](const QualityPoint& point) { return point.f1.has_value(); });
}

std::vector<Rated> rate(std::span<const LatencyPoint> points, const std::string& panel, const std::string& task,
                        const std::vector<QualityPoint>& quality) {
  const bool f1 = by_f1(quality);
  std::vector<Rated> rated;
  for (const LatencyPoint& point : points) {
    if (point.panel != panel || (!point.task.empty() && point.task != task)) continue;
    for (const QualityPoint& known : quality) {
      if (known.codec != point.codec || known.level != point.level) continue;
      if (const auto value = f1 ? known.f1 : known.kl) rated.push_back({&point, f1 ? 100 * *value : *value});
    }
  }
  return rated;
}

// time quality level
std::string rows_of(const std::vector<Rated>& rated, const std::string& codec) {
  std::string rows;
  for (const Rated& one : rated) {
    if (!codec.empty() && one.point->codec != codec) continue;
    rows += plot_number(one.point->ttft_ms) + " " + plot_number(one.quality) + " " + std::to_string(one.point->level) +
            "\n";
  }
  return rows;
}

std::vector<Rated> front_of(const std::vector<Rated>& rated, bool f1) {
  std::vector<std::pair<double, double>> places;
  for (const Rated& one : rated) places.emplace_back(one.point->ttft_ms, f1 ? one.quality : -one.quality);
  std::vector<Rated> front;
  for (const size_t index : pareto_front(places)) front.push_back(rated[index]);
  return front;
}

// Steps: between two points the earlier one is the best there is.
constexpr const char* kFrontLine = "linecolor rgb '#999999' linewidth 5 dashtype solid";
constexpr const char* kFrontRing = "linecolor rgb '#000000' linewidth 1 pointtype 6 pointsize 2.4";

std::string tradeoff_panel(PanelGrid& grid, const PlotInput& input, const std::string& title,
                           const std::vector<Rated>& rated, bool f1) {
  AxisRange times, qualities;
  for (const Rated& one : rated) {
    times.add(one.point->ttft_ms);
    qualities.add(one.quality);
  }
  const std::string front = grid.add_data(rows_of(front_of(rated, f1), ""));
  std::string plots = "plot " + front + " using 1:2 with steps " + kFrontLine + " notitle, \\\n  " + front +
                      " using 1:2 with points " + kFrontRing + " notitle";
  for (const std::string& codec : input.codecs) {
    const std::string rows = rows_of(rated, codec);
    if (rows.empty()) continue;
    const std::string block = grid.add_data(rows);
    plots += ", \\\n  " + block + " using 1:2 with linespoints " + series_style(style_index(input, codec)) + " notitle";
    if (std::ranges::count(rows, '\n') > 1) {
      plots += ", \\\n  " + block +
               " using 1:2:(sprintf('%d', $3)) with labels offset 0.9,0.7 font ',8' textcolor rgb '#333333' notitle";
    }
  }
  return "set title " + gnuplot_quoted(title) + "\nset xlabel 'TTFT, ms'\nset ylabel " +
         (f1 ? "'F1, %'" : "'KL to the oracle, nats'") + "\nset grid\n" +
         (times.wide() ? log_axis("x", times) : linear_axis("x", times)) +
         (!f1 && qualities.wide() ? log_axis("y", qualities) : linear_axis("y", qualities)) + plots + "\n";
}

std::string bar_label(const PlotInput& input, const LatencyPoint& point) {
  const auto has_levels = [&](const LatencyPoint& other) { return other.codec == point.codec && other.level > 0; };
  return std::ranges::any_of(input.latency, has_levels) ? point.codec + "@" + std::to_string(point.level) : point.codec;
}

std::string parts_panel(PanelGrid& grid, const PlotInput& input, std::span<const LatencyPoint> points,
                        const std::string& title) {
  std::string rows, tics;
  size_t bars = 0;
  for (const LatencyPoint& point : points) {
    if (point.panel != title) continue;
    for (const double part : point.parts_ms) rows += plot_number(part) + " ";
    rows += "\n";
    tics += (bars > 0 ? ", " : "") + gnuplot_quoted(bar_label(input, point)) + " " + std::to_string(bars);
    ++bars;
  }
  const std::string block = grid.add_data(rows);
  std::string plots;
  for (size_t part = 0; part < kTtftParts.size(); ++part) {
    plots += (part == 0 ? "plot " : ", \\\n  ") + block + " using " + std::to_string(part + 1) + " " +
             fill_style(part) + " notitle";
  }
  return "set title " + gnuplot_quoted(title) +
         "\nset ylabel 'TTFT, ms'\nset style data histograms\nset style histogram rowstacked\nset boxwidth 0.75\n"
         "set grid ytics\nset yrange [0:*]\nset xrange [-0.6:" +
         plot_number(static_cast<double>(bars) - 0.4) + "]\nset xtics rotate by 45 right nomirror (" + tics + ")\n" +
         plots + "\n";
}

}  // namespace

std::optional<Figure> tradeoff_figure(const PlotInput& input, std::span<const LatencyPoint> points,
                                      const std::string& task) {
  const std::vector<QualityPoint>& quality = input.quality.at(task);
  const bool f1 = by_f1(quality);
  PanelGrid grid(3, 460, 380);
  std::map<std::string, bool> drawn;
  for (const std::string& panel : panels_of(points)) {
    const std::vector<Rated> rated = rate(points, panel, task, quality);
    if (rated.empty()) continue;
    grid.add_panel(tradeoff_panel(grid, input, panel, rated, f1));
    for (const Rated& one : rated) drawn[one.point->codec] = true;
  }
  if (drawn.empty()) return std::nullopt;
  for (const std::string& codec : input.codecs) {
    if (!drawn[codec]) continue;
    grid.add_legend("NaN with linespoints " + series_style(style_index(input, codec)) + " title " +
                    gnuplot_quoted(codec));
  }
  grid.add_legend(std::string("NaN with lines ") + kFrontLine + " title 'Pareto front'");
  grid.add_legend(std::string("NaN with points ") + kFrontRing + " title 'on the front'");
  return grid.finish("tradeoff_" + figure_file_name(task) + "_" + suffix_of(points.front()),
                     "Quality against time to the first token: " + task + ", " + setting_of(points.front()));
}

Figure parts_figure(const PlotInput& input, std::span<const LatencyPoint> points) {
  PanelGrid grid(3, 460, 380);
  for (const std::string& panel : panels_of(points)) grid.add_panel(parts_panel(grid, input, points, panel));
  for (size_t part = kTtftParts.size(); part-- > 0;) {  // as they are stacked
    grid.add_legend("NaN with boxes " + fill_style(part) + " title " + gnuplot_quoted(kTtftParts[part].name));
  }
  return grid.finish("ttft_" + suffix_of(points.front()),
                     "Parts of the time to the first token: " + setting_of(points.front()));
}

}  // namespace scd
