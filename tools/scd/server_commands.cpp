#include "tools/scd/server_commands.h"

#include "tools/scd/bench_pair.h"
#include "tools/scd/bench_pareto.h"
#include "tools/scd/bench_scale.h"
#include "tools/scd/bench_serve.h"
#include "tools/scd/bench_transfer.h"
#include "tools/scd/complete.h"

namespace scd {

void add_server_commands(CLI::App& app, CLI::App& bench) {
  add_complete_command(app);
  add_bench_pair_command(bench);
  add_bench_pareto_command(bench);
  add_bench_scale_command(bench);
  add_bench_serve_command(bench);
  add_bench_transfer_command(bench);
}

}  // namespace scd
