#include "tools/scd/plot_figures.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "common/base/error.h"
#include "tools/scd/latency_figures.h"
#include "tools/scd/load_figures.h"
#include "tools/scd/quality_figures.h"

namespace scd {
namespace {

// What is drawn together: points of one regime and one prompt length (0: a question file's prompts).
std::vector<LatencyPoint> select(const PlotInput& input, const std::string& regime, int64_t prompt_tokens) {
  std::vector<LatencyPoint> chosen;
  std::ranges::copy_if(input.latency, std::back_inserter(chosen), [&](const LatencyPoint& point) {
    return point.regime == regime && point.prompt_tokens == prompt_tokens;
  });
  return chosen;
}

// The prompt lengths to draw: one of bench pareto's, and those of bench pair.
std::vector<int64_t> drawn_lengths(const PlotInput& input, int64_t asked) {
  std::set<int64_t> lengths;
  for (const LatencyPoint& point : input.latency) lengths.insert(point.prompt_tokens);
  std::vector<int64_t> drawn;
  if (lengths.contains(0)) drawn.push_back(0);
  lengths.erase(0);
  if (lengths.empty()) return drawn;
  if (asked > 0 && !lengths.contains(asked)) {
    std::string known;
    for (const int64_t tokens : lengths) known += (known.empty() ? "" : ", ") + std::to_string(tokens);
    throw Error(ErrorCode::kInvalidArgument, "--prompt-tokens " + std::to_string(asked) +
                                                 ": the files hold prompts of " + known + " tokens; name one of them");
  }
  drawn.push_back(asked > 0 ? asked : *lengths.rbegin());
  return drawn;
}

Figure layer_figure(const PlotInput& input) {
  PanelGrid grid(2, 620, 420);
  AxisRange layers, losses;
  std::string plot;
  for (size_t i = 0; i < input.layers.size(); ++i) {
    std::string rows;
    for (size_t layer = 0; layer < input.layers[i].values.size(); ++layer) {
      const auto& value = input.layers[i].values[layer];
      layers.add(static_cast<double>(layer));
      if (value) losses.add(*value);
      rows += std::to_string(layer) + " " + (value ? plot_number(*value) : "NaN") + "\n";
    }
    const std::string block = grid.add_data(rows);
    plot += (i == 0 ? "plot " : ", \\\n  ") + block + " using 1:2 with linespoints " + series_style(i) +
            " pointsize 0.7 notitle";
    grid.add_legend("NaN with linespoints " + series_style(i) + " title " + gnuplot_quoted(input.layers[i].name));
  }
  grid.add_panel("set xlabel 'layer'\nset ylabel 'loss'\nset grid\nset xrange " + layers.linear() + "\nset yrange " +
                 losses.linear() + "\n" + plot + "\n");
  return grid.finish("layers", "Loss by layer, as calibration measured it");
}

// Names of tasks may differ only in what a file name cannot hold.
void make_names_unique(std::vector<Figure>& figures) {
  std::set<std::string> names;
  for (Figure& figure : figures) {
    const std::string name = figure.name;
    for (int copy = 2; !names.insert(figure.name).second; ++copy) figure.name = name + "_" + std::to_string(copy);
  }
}

}  // namespace

std::vector<size_t> pareto_front(std::span<const std::pair<double, double>> points) {
  std::vector<size_t> order(points.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    return points[a].first != points[b].first ? points[a].first < points[b].first : points[a].second > points[b].second;
  });
  std::vector<size_t> front;
  for (const size_t i : order) {
    if (front.empty() || points[i].second > points[front.back()].second) front.push_back(i);
  }
  return front;
}

std::vector<Figure> make_figures(const PlotInput& input, int64_t prompt_tokens) {
  std::vector<Figure> figures;
  for (const auto& [task, points] : input.quality) {
    if (auto figure = quality_figure(input, task)) figures.push_back(*std::move(figure));
  }
  for (const int64_t tokens : drawn_lengths(input, prompt_tokens)) {
    for (const char* regime : {kPrefillInPath, kHandoff}) {
      const std::vector<LatencyPoint> points = select(input, regime, tokens);
      if (points.empty()) continue;
      for (const auto& [task, quality] : input.quality) {
        if (auto figure = tradeoff_figure(input, points, task)) figures.push_back(*std::move(figure));
      }
      figures.push_back(parts_figure(input, points));
    }
  }
  std::ranges::move(load_figures(input), std::back_inserter(figures));
  if (!input.layers.empty()) figures.push_back(layer_figure(input));
  make_names_unique(figures);
  return figures;
}

}  // namespace scd
