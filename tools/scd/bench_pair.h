// `scd bench pair`: a question set to a running pair, codec by codec: bytes, answers, and where the time to the first
// token goes, for a context's first question (prefill in path) and its next ones (hand-off: the codes exist).
#pragma once

namespace CLI {
class App;
}

namespace scd {

void add_bench_pair_command(CLI::App& bench);

}  // namespace scd
