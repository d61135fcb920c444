// Quality against bytes: one figure a task.
#pragma once

#include <optional>
#include <string>

#include "tools/scd/panel_grid.h"
#include "tools/scd/plot_input.h"

namespace scd {

// The style of a codec: its place in the input's list, so that it looks alike in every figure.
size_t style_index(const PlotInput& input, const std::string& codec);

// F1 with its interval, and KL, against bytes a token; the levels of a codec joined. What sends nothing (the oracle) is
// a level line. Nothing where no codec of the task sends anything.
std::optional<Figure> quality_figure(const PlotInput& input, const std::string& task);

}  // namespace scd
