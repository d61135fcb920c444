#include "tools/scd/quality_figures.h"

#include <algorithm>

namespace scd {
namespace {

using Get = std::optional<double> (*)(const QualityPoint&);

std::optional<double> f1_of(const QualityPoint& point) { return point.f1; }
std::optional<double> kl_of(const QualityPoint& point) { return point.kl; }

bool sends(const QualityPoint& point) { return point.bytes_per_token > 0; }

struct Axis {
  const char* label;
  Get get;
  double scale;
  bool interval;
};

// bytes value low high level, one line a level.
std::string rows_of(const std::vector<QualityPoint>& points, const std::string& codec, const Axis& axis) {
  std::string rows;
  for (const QualityPoint& point : points) {
    const auto value = axis.get(point);
    if (point.codec != codec || !value || !sends(point)) continue;
    const double low = axis.interval ? point.f1_low.value_or(*value) : *value;
    const double high = axis.interval ? point.f1_high.value_or(*value) : *value;
    rows += plot_number(point.bytes_per_token) + " " + plot_number(axis.scale * *value) + " " +
            plot_number(axis.scale * low) + " " + plot_number(axis.scale * high) + " " + std::to_string(point.level) +
            "\n";
  }
  return rows;
}

std::string codec_plots(const std::string& block, const std::string& style, bool levels, bool interval) {
  std::string plots = block + " using 1:2 with linespoints " + style + " notitle";
  if (interval)
    plots += ", \\\n  " + block + " using 1:2:3:4 with yerrorbars " + style + " linewidth 1 dashtype solid notitle";
  if (levels) {
    plots += ", \\\n  " + block +
             " using 1:2:(sprintf('%d', $5)) with labels offset 0.9,0.7 font ',8' textcolor rgb '#333333' notitle";
  }
  return plots;
}

// One codec that sends nothing: a level line.
std::string level_line(const QualityPoint& point, const Axis& axis, const std::string& style) {
  return plot_number(axis.scale * axis.get(point).value()) + " with lines " + style + " linewidth 1 notitle";
}

// Orders of magnitude want a logarithmic axis; it has no place for 0.
std::string y_axis(const std::vector<QualityPoint>& points, const Axis& axis) {
  AxisRange range;
  for (const QualityPoint& point : points) {
    const auto value = axis.get(point);
    if (!value || !(sends(point) || *value > 0)) continue;
    range.add(axis.scale * *value);
    if (axis.interval) range.add(axis.scale * point.f1_low.value_or(*value));
    if (axis.interval) range.add(axis.scale * point.f1_high.value_or(*value));
  }
  if (!axis.interval && range.wide()) return log_axis("y", range);
  return linear_axis("y", range);
}

std::string x_axis(const std::vector<QualityPoint>& points, const Axis& axis) {
  AxisRange range;
  for (const QualityPoint& point : points) {
    if (sends(point) && axis.get(point)) range.add(point.bytes_per_token);
  }
  return log_axis("x", range);
}

void add_axis(PanelGrid& grid, const PlotInput& input, const std::vector<QualityPoint>& points, const Axis& axis) {
  std::string plots;
  const auto add = [&plots](const std::string& plot) { plots += (plots.empty() ? "plot " : ", \\\n  ") + plot; };
  for (const std::string& codec : input.codecs) {
    const std::string style = series_style(style_index(input, codec));
    const std::string rows = rows_of(points, codec, axis);
    if (!rows.empty()) add(codec_plots(grid.add_data(rows), style, std::ranges::count(rows, '\n') > 1, axis.interval));
    for (const QualityPoint& point : points) {
      const bool line = point.codec == codec && !sends(point) && axis.get(point).has_value() && *axis.get(point) > 0;
      if (line) add(level_line(point, axis, style));
    }
  }
  grid.add_panel("set xlabel 'bytes per token'\nset ylabel " + gnuplot_quoted(axis.label) + "\nset grid\n" +
                 x_axis(points, axis) + y_axis(points, axis) + plots + "\n");
}

}  // namespace

size_t style_index(const PlotInput& input, const std::string& codec) {
  return static_cast<size_t>(std::ranges::find(input.codecs, codec) - input.codecs.begin());
}

std::optional<Figure> quality_figure(const PlotInput& input, const std::string& task) {
  const std::vector<QualityPoint>& points = input.quality.at(task);
  PanelGrid grid(3, 460, 400);
  bool any = false;
  for (const Axis& axis :
       {Axis{"F1, % (bars: 95 % interval)", &f1_of, 100, true}, Axis{"KL to the oracle, nats", &kl_of, 1, false}}) {
    const bool there = std::ranges::any_of(points, [&](const auto& point) { return sends(point) && axis.get(point); });
    if (there) add_axis(grid, input, points, axis);
    any = any || there;
  }
  if (!any) return std::nullopt;
  for (const std::string& codec : input.codecs) {
    if (std::ranges::find(points, codec, &QualityPoint::codec) == points.end()) continue;
    grid.add_legend("NaN with linespoints " + series_style(style_index(input, codec)) + " title " +
                    gnuplot_quoted(codec));
  }
  return grid.finish("quality_" + figure_file_name(task),
                     "Quality against bytes per token: " + task + " (numbers: levels, 0 is the finest)");
}

}  // namespace scd
