// The options every command has that starts pairs of servers.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/scd/server_pair.h"

namespace scd {

inline void add_server_pair_options(CLI::App& command, ServerPairOptions& servers) {
  command.add_option("--producer", servers.producer, "Checkpoint of the prefill server");
  command.add_option("--producer-adapter", servers.producer_adapter, "LoRA adapter merged into it");
  command.add_option("--consumer", servers.consumer, "Checkpoint of the decode server");
  command.add_option("--consumer-adapter", servers.consumer_adapter, "LoRA adapter merged into it");
  command.add_option("--artifacts", servers.artifacts, "Codec artifacts of the pair, comma-separated: one pair each")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--precision", servers.precision, "auto, bf16 or fp32")->capture_default_str();
  command.add_option("--transports", servers.transports, "As in UCX_TLS")->capture_default_str();
  command.add_option("--code-cache-mib", servers.code_cache_mib, "Memory for stored codes of a prefill server")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--set-prefill", servers.prefill_settings, "path=value for the prefill servers; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--set-decode", servers.decode_settings, "path=value for the decode servers; may be repeated")
      ->allow_extra_args(false);
}

}  // namespace scd
