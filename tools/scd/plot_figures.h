// The figures of `scd plot`.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "tools/scd/gnuplot.h"
#include "tools/scd/plot_input.h"

namespace scd {

// Indices of the points that no other point beats: cost (x) is to be small, quality (y) large. Ascending by cost; of
// equal points the first.
std::vector<size_t> pareto_front(std::span<const std::pair<double, double>> points);

// Quality against bytes a token for each task, quality against time and the parts of the time for each regime,
// latencies and throughput over the load, loss by layer: whatever the input holds. `prompt_tokens`: which prompts of
// bench pareto; 0: the longest. Throws Error when there are none of that length.
std::vector<Figure> make_figures(const PlotInput& input, int64_t prompt_tokens);

}  // namespace scd
