// `scd complete`: send one prompt to a decode server and watch the answer arrive.
#pragma once

namespace CLI {
class App;
}

namespace scd {

void add_complete_command(CLI::App& app);

}  // namespace scd
