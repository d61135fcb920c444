// `scd eval`: what a codec does to a consumer's answers, by the engine and codec code the servers run.
#pragma once

namespace CLI {
class App;
}

namespace scd {

void add_eval_command(CLI::App& app);

}  // namespace scd
