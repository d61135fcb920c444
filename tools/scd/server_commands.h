// The commands that talk to servers, or start some.
#pragma once

namespace CLI {
class App;
}

namespace scd {

// None in a build without servers (SCD_SERVERS=OFF).
void add_server_commands(CLI::App& app, CLI::App& bench);

}  // namespace scd
