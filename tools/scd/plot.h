// `scd plot`: the figures and the page of what eval and bench measured.
#pragma once

namespace CLI {
class App;
}

namespace scd {

void add_plot_command(CLI::App& app);

}  // namespace scd
