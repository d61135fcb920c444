// `scd bench scale`: whether a token costs the same however many sequences run and however many chunks are stored.
#pragma once

namespace CLI {
class App;
}

namespace scd {

void add_bench_scale_command(CLI::App& bench);

}  // namespace scd
