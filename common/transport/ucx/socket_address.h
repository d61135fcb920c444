// "host:port" and sockets.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "common/base/error.h"

namespace scd {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  uint16_t port() const;
  std::string text() const;  // "10.0.0.1:7000", "[fe80::1]:7000"
};

// A numeric address: never asks a name server, so it never blocks. INVALID_ARGUMENT otherwise.
Result<SocketAddress> parse_numeric_address(const std::string& host_and_port);
// May ask a name server. Throws INVALID_ARGUMENT.
SocketAddress resolve_address(const std::string& host, uint16_t port);
// What to tell peers: `advertise` ("host", "host:port" or empty) resolved, the bound address by default, and for a
// wildcard address this host's first address that is not loopback.
std::string advertised_address(const std::string& advertise, const std::string& listen_host, uint16_t port);

}  // namespace scd
