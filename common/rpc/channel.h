// gRPC connections to other daemons.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "common/rpc/options.h"

namespace scd {

// Connects lazily; uses tls (as a client), keepalive and max_message_bytes of the options.
// server_name: whom the server's certificate must name; empty: the host of the address.
// Throws Error NOT_FOUND where a TLS file cannot be read.
std::shared_ptr<grpc::Channel> make_channel(const std::string& address, const GrpcOptions& options,
                                            const std::string& server_name = {});

}  // namespace scd
