// Settings from a YAML file and from the command line (`--set path=value`), and back to YAML with the help as comments.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/config/visitor.h"

namespace scd {

struct ConfigSource {
  std::filesystem::path file;  // empty: the defaults
  std::vector<std::string>
      overrides;  // "transport.listen_host=10.0.0.1", "prefill.endpoints=[a:1, b:2]"; the last wins
};

using DescribeConfig = std::function<void(ConfigVisitor&)>;

// Throws Error: NOT_FOUND (no such file), INVALID_ARGUMENT (not YAML, unknown key with the nearest known one, wrong
// kind or range: with file:line and what would be right).
void load_described(const DescribeConfig& describe_all, const ConfigSource& source);
std::string dump_described(const DescribeConfig& describe_all);

// Reads the source over what is in `config`.
template <class Config>
void load_config(Config& config, const ConfigSource& source) {
  load_described([&config](ConfigVisitor& at) { describe(at, config); }, source);
}

// YAML that loads to the same `config`.
template <class Config>
std::string dump_config(Config config) {
  return dump_described([&config](ConfigVisitor& at) { describe(at, config); });
}

}  // namespace scd
