// `scd bench pareto`: what every codec and level costs a real pair, over bandwidths, prompt lengths and both regimes.
#pragma once

namespace CLI {
class App;
}

namespace scd {

void add_bench_pareto_command(CLI::App& bench);

}  // namespace scd
