// The options every command that talks to a decode server has.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/scd/client.h"

namespace scd {

inline void add_client_options(CLI::App& command, ClientOptions& options) {
  command.add_option("--server", options.server, "host:port of the decode server")->capture_default_str();
  command.add_option("--ca", options.ca_file, "PEM file of the authority to trust: switches TLS on");
  command.add_option("--cert", options.certificate_file, "PEM file of our certificate (mutual TLS)");
  command.add_option("--key", options.key_file, "PEM file of our key (mutual TLS)");
  command.add_option_function<double>(
      "--timeout",
      [&options](double seconds) { options.timeout = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)); },
      "Seconds until a request is given up (default 120)");
}

}  // namespace scd
