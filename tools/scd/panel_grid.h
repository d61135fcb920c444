// Several plots side by side in one figure, with one legend of their own: what the figures of `scd plot` share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tools/scd/gnuplot.h"

namespace scd {

class PanelGrid {
 public:
  // `columns` panels a line at most; each `panel_width` x `panel_height` pixels.
  PanelGrid(size_t columns, int panel_width, int panel_height)
      : columns_(columns), panel_width_(panel_width), panel_height_(panel_height) {}

  // Rows of numbers, as gnuplot reads them; returns the name of the block. "NaN" is a gap.
  std::string add_data(const std::string& rows);
  void add_panel(const std::string& commands) { panels_.push_back(commands); }
  // Entries of a plot command that draw nothing but their title: the legend takes the place after the last panel.
  void add_legend(const std::string& entry) { legend_.push_back(entry); }

  Figure finish(const std::string& name, const std::string& caption) const;

 private:
  std::string legend() const;

  size_t columns_;
  int panel_width_;
  int panel_height_;
  std::string data_;
  size_t blocks_ = 0;
  std::vector<std::string> panels_;
  std::vector<std::string> legend_;
};

std::string plot_number(double value);

// The values on an axis, and the range they need. gnuplot's own ranges fail where all values are one.
class AxisRange {
 public:
  void add(double value);
  std::string linear() const;  // "[a:b]" with a margin
  std::string log() const;     // the same for a logarithmic axis; values above 0
  // Places of labels on a logarithmic axis, "(100, 200, 500, 1000)": gnuplot's own are whole decades, of which a range
  // may hold none.
  std::string log_tics() const;
  bool wide() const { return least_ > 0 && most_ > 4 * least_; }

 private:
  double log_margin() const;

  double least_ = 0;
  double most_ = 0;
  bool any_ = false;
};

// Range and labels of axis "x" or "y".
std::string linear_axis(const std::string& axis, const AxisRange& range);
std::string log_axis(const std::string& axis, const AxisRange& range);

// "linestyle N", the same for the same index; options after it override. Markers and dashes differ as colours do, so
// that a print without colour tells them apart.
std::string series_style(size_t index);

// Fill of a stacked part: pattern and outline.
std::string fill_style(size_t index);

}  // namespace scd
