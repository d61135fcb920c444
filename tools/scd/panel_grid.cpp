#include "tools/scd/panel_grid.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace scd {
namespace {

// Dark enough for paper; after Okabe and Ito's palette, which the colour-blind can tell apart.
constexpr std::array kColours{"#000000", "#0072B2", "#D55E00", "#009E73", "#AA4499", "#8C6D00", "#555555", "#3A3A9E"};
constexpr std::array kMarkers{7, 4, 9, 12, 11, 6, 5, 8, 13, 10, 2, 1};  // filled and open ones in turn
constexpr std::array kDashes{"solid", "(9,4)", "(2,3)", "(9,3,2,3)", "(14,5)", "(5,2,2,2,2,2)", "(4,6)"};
constexpr std::array kFills{0, 1, 3, 4, 2, 5, 6, 7};  // patterns of gnuplot's cairo and SVG terminals
constexpr std::array kFillColours{"#000000", "#0072B2", "#555555", "#D55E00",
                                  "#009E73", "#AA4499", "#000000", "#8C6D00"};

constexpr size_t kStyles = 24;

std::string style_definitions() {
  std::string text;
  for (size_t i = 0; i < kStyles; ++i) {
    text += "set style line " + std::to_string(i + 1) + " linewidth 1.6 linecolor rgb '" +
            kColours[i % kColours.size()] + "' dashtype " + kDashes[i % kDashes.size()] + " pointtype " +
            std::to_string(kMarkers[i % kMarkers.size()]) + " pointsize 1.1\n";
  }
  return text;
}

}  // namespace

std::string PanelGrid::add_data(const std::string& rows) {
  const std::string name = "$block" + std::to_string(blocks_++);
  data_ += name + " << END_OF_BLOCK\n" + rows + "END_OF_BLOCK\n";
  return name;
}

std::string PanelGrid::legend() const {
  std::string text =
      "unset title\nunset xlabel\nunset ylabel\nunset border\nunset xtics\nunset ytics\nunset grid\nunset logscale\n"
      "unset arrow\nunset label\nset style data lines\n"
      "set key left center vertical Left reverse maxrows 14 samplen 3 spacing 1.25 noautotitle\n"
      "set xrange [0:1]\nset yrange [0:1]\nplot ";
  for (size_t i = 0; i < legend_.size(); ++i) text += (i == 0 ? "" : ", \\\n  ") + legend_[i];
  return text + "\n";
}

Figure PanelGrid::finish(const std::string& name, const std::string& caption) const {
  const size_t places = panels_.size() + 1;
  const size_t columns = std::min(columns_, places);
  const size_t rows = (places + columns - 1) / columns;
  std::string commands =
      style_definitions() + "set multiplot layout " + std::to_string(rows) + "," + std::to_string(columns) + "\n";
  for (const std::string& panel : panels_) commands += panel;
  commands += legend() + "unset multiplot\n";
  return {.name = name,
          .caption = caption,
          .width = static_cast<int>(columns) * panel_width_,
          .height = static_cast<int>(rows) * panel_height_,
          .data = data_,
          .commands = commands};
}

std::string plot_number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.9g", value);
  return text.data();
}

void AxisRange::add(double value) {
  least_ = any_ ? std::min(least_, value) : value;
  most_ = any_ ? std::max(most_, value) : value;
  any_ = true;
}

std::string AxisRange::linear() const {
  const double span = most_ - least_;
  const double margin = span > 0 ? 0.09 * span : least_ == 0 ? 1 : 0.1 * std::abs(least_);
  return "[" + plot_number(least_ - margin) + ":" + plot_number(most_ + margin) + "]";
}

double AxisRange::log_margin() const { return least_ < most_ ? std::pow(most_ / least_, 0.09) : 2; }

std::string AxisRange::log() const {
  return "[" + plot_number(least_ / log_margin()) + ":" + plot_number(most_ * log_margin()) + "]";
}

std::string AxisRange::log_tics() const {
  const double first = least_ / log_margin(), last = most_ * log_margin();
  const std::vector<double> steps = last > 8000 * first  ? std::vector{1.0}
                                    : last > 200 * first ? std::vector{1.0, 3.0}
                                    : last > 8 * first   ? std::vector{1.0, 2.0, 5.0}
                                                         : std::vector{1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0};
  std::string tics;
  for (double decade = std::pow(10, std::floor(std::log10(first))); decade <= last; decade *= 10) {
    for (const double step : steps) {
      const double at = step * decade;
      if (at >= first && at <= last) tics += (tics.empty() ? "" : ", ") + plot_number(at);
    }
  }
  return "(" + tics + ")";
}

std::string linear_axis(const std::string& axis, const AxisRange& range) {
  return "unset logscale " + axis + "\nset " + axis + "tics autofreq\nset " + axis + "range " + range.linear() + "\n";
}

std::string log_axis(const std::string& axis, const AxisRange& range) {
  return "set logscale " + axis + "\nset " + axis + "tics " + range.log_tics() + "\nset " + axis + "range " +
         range.log() + "\n";
}

std::string series_style(size_t index) { return "linestyle " + std::to_string(1 + index % kStyles); }

std::string fill_style(size_t index) {
  return "fillstyle pattern " + std::to_string(kFills[index % kFills.size()]) + " linecolor rgb '" +
         kFillColours[index % kFillColours.size()] + "'";
}

}  // namespace scd
