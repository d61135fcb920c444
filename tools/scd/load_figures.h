// Load curves: latencies, throughput and goodput over the load, one curve a codec.
#pragma once

#include <vector>

#include "tools/scd/gnuplot.h"
#include "tools/scd/plot_input.h"

namespace scd {

// One figure for open loops (over requests a second), one for closed loops (over requests at once), for each task;
// whatever the input holds.
std::vector<Figure> load_figures(const PlotInput& input);

}  // namespace scd
