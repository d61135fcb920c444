// One HTML page with all figures and the numbers behind them; it needs no other file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tools/scd/gnuplot.h"
#include "tools/scd/plot_input.h"

namespace scd {

std::string html_escaped(std::string_view text);

// An SVG file's element, without XML prologue, with `prefix` before every id: figures of one page share no names.
std::string inline_svg(std::string_view file, const std::string& prefix);

// Writes the page; the figures' SVG files lie in `folder`. Throws Error naming a file that cannot be read or written.
void write_plot_page(const std::filesystem::path& file, const std::string& title, const PlotInput& input,
                     const std::vector<Figure>& figures, const std::filesystem::path& folder);

}  // namespace scd
