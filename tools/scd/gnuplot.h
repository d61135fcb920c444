// Figures by gnuplot: what is drawn is a script with its data inside; text from outside enters it quoted only.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace scd {

struct Figure {
  std::string name;     // of its files, without ending; figure_file_name() of what comes from outside
  std::string caption;  // for people
  int width = 0;        // pixels
  int height = 0;
  std::string data;      // datablocks
  std::string commands;  // after the terminal is set; run once a terminal
};

// A string of gnuplot's language: in single quotes nothing is substituted or run. Control characters become spaces.
std::string gnuplot_quoted(std::string_view text);

// The text as part of a file name: what is no ASCII letter, digit, dash or underscore becomes an underscore.
std::string figure_file_name(std::string_view text);

// Writes NAME.svg and NAME.png of each figure into `folder`, which is made. No shell is involved. Throws Error:
// kNotFound when gnuplot is not installed, kInternal with its exit status when it refuses a figure.
void draw_figures(const std::vector<Figure>& figures, const std::filesystem::path& folder);

}  // namespace scd
