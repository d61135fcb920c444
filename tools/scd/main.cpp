// scd: the command line of the pair. One file a command; each adds itself to the app.
#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>

#include "common/base/error.h"
#include "tools/scd/bench_adapters.h"
#include "tools/scd/bench_codec.h"
#include "tools/scd/bench_engine.h"
#include "tools/scd/bench_kernels.h"
#include "tools/scd/calibrate.h"
#include "tools/scd/eval.h"
#include "tools/scd/inspect.h"
#include "tools/scd/logits.h"
#include "tools/scd/make_artifact.h"
#include "tools/scd/make_model.h"
#include "tools/scd/plot.h"
#include "tools/scd/server_commands.h"
#include "tools/scd/tokenize.h"

int main(int argc, char** argv) {
  CLI::App app{
      "scd: talk to, calibrate, judge and measure a disaggregated prefill/decode pair.\n"
      "Each command has its own --help."};
  app.require_subcommand(1);
  app.set_version_flag("--version", SCD_VERSION);
  scd::add_calibrate_command(app);
  scd::add_eval_command(app);
  scd::add_plot_command(app);
  scd::add_tokenize_command(app);
  scd::add_logits_command(app);
  scd::add_inspect_command(app);
  scd::add_make_model_command(app);
  scd::add_make_artifact_command(app);
  CLI::App* bench = app.add_subcommand("bench", "Measure a part against its limit");
  bench->require_subcommand(1);
  scd::add_bench_adapters_command(*bench);
  scd::add_bench_codec_command(*bench);
  scd::add_bench_engine_command(*bench);
  scd::add_bench_kernels_command(*bench);
  scd::add_server_commands(app, *bench);

  try {
    app.parse(argc, argv);  // runs the chosen command's callback
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const scd::Error& error) {
    std::cerr << "scd: " << scd::to_string(error.code()) << ": " << error.what() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "scd: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
