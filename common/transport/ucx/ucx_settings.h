// The UCX settings a transport runs with, and their environment variables, which win when the user sets them.
#pragma once

#include <string>
#include <vector>

#include "common/transport/options.h"

namespace scd {

struct UcxSetting {
  std::string key;       // as ucp_config_modify of UCX 1.13 knows it
  std::string variable;  // as users and other UCX programs know it
  std::string value;     // the user's, where `variable` is set
  bool by_user = false;
};

std::vector<UcxSetting> ucx_settings(const TransportOptions& options);

}  // namespace scd
