// Time to the first token: against quality, and by its parts. One panel a bandwidth (of bench pair: a question file).
#pragma once

#include <optional>
#include <span>
#include <string>

#include "tools/scd/panel_grid.h"
#include "tools/scd/plot_input.h"

namespace scd {

// `points`: of one regime and prompt length. Quality is F1, or KL where the task has no F1; rings mark what no other
// codec beats in both. Nothing where no point has a quality on the task.
std::optional<Figure> tradeoff_figure(const PlotInput& input, std::span<const LatencyPoint> points,
                                      const std::string& task);

// Stacked parts, a bar a codec and level.
Figure parts_figure(const PlotInput& input, std::span<const LatencyPoint> points);

}  // namespace scd
