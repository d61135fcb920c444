#include "tools/scd/server_commands.h"

namespace scd {

void add_server_commands(CLI::App&, CLI::App&) {}

}  // namespace scd
