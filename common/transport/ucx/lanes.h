// What UCX picked, read from its own printed descriptions (an API for it exists from UCX 1.14 only).
#pragma once

#include <string>
#include <string_view>

namespace scd {

struct Lanes {
  std::string text;   // "posix/memory cma/memory": transport/device, each once, in UCX's order
  bool rdma = false;  // payloads travel over InfiniBand or RoCE
  bool tcp = false;   // over nothing but TCP
};

// Reads ucp_ep_print_info: the lanes of one connection.
Lanes parse_endpoint_lanes(std::string_view printed);
// Reads ucp_context_print_info: everything this process could use.
Lanes parse_context_resources(std::string_view printed);

}  // namespace scd
