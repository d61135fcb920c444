#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

#include "common/config/config.h"
#include "common/log/log.h"
#include "common/rpc/daemon.h"
#include "decode_server/config.h"
#include "decode_server/server.h"

namespace scd {
namespace {

struct Arguments {
  ConfigSource source;
  bool check_only = false;
  bool dump_only = false;
  std::filesystem::path port_file;
};

int serve(const DecodeConfig& config, const Arguments& arguments) {
  ShutdownSignal signal;
  DecodeServer server(config);
  if (!arguments.port_file.empty()) write_port_file(arguments.port_file, server.port());
  signal.on_second([&server] { server.hurry(); });
  signal.wait();
  log_info("draining", {{"timeout_ms", config.limits.drain_timeout.count()}});
  const size_t ended = server.drain(config.limits.drain_timeout);
  signal.on_second({});  // the server goes
  log_info("stopped", {{"ended_requests", ended}});
  return 0;
}

int run(const Arguments& arguments) {
  DecodeConfig config;
  load_config(config, arguments.source);
  if (arguments.dump_only) return std::fputs(dump_config(config).c_str(), stdout) < 0;
  configure_log(config.log);
  check_config(config);
  check_files(config.model, config.codec.artifact, config.grpc.tls);
  check_model_files(config);
  check_for_daemon(config.transport);
  if (arguments.check_only) return 0;
  return serve(config, arguments);
}

}  // namespace
}  // namespace scd

int main(int argc, char** argv) {
  CLI::App app("Answers prompts with a language model whose prompts' state comes from prefill servers.");
  scd::Arguments arguments;
  app.add_option("--config", arguments.source.file, "YAML file; see --dump-config for every key");
  app.add_option("--set", arguments.source.overrides, "path=value, over the file; may be repeated")
      ->allow_extra_args(false);
  app.add_flag("--check-config", arguments.check_only, "Check the configuration and exit");
  app.add_flag("--dump-config", arguments.dump_only, "Print the configuration in force, with explanations, and exit");
  app.add_option("--port-file", arguments.port_file, "Write the gRPC port here once the server is ready");
  app.set_version_flag("--version", SCD_VERSION);
  CLI11_PARSE(app, argc, argv);
  try {
    return scd::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "decode_server: %s\n", error.what());
    return 1;
  }
}
