// gRPC connections to other daemons.
//
// gRPC serves callbacks on threads that it ends with the last channel that had any, in whichever thread lets go of
// that, waiting for each. One of them would wait for itself and go on in memory that is freed (gRPC 1.51). So a
// callback lets go of channels, and of stubs and client contexts, which hold theirs, before it tells anybody that it is
// done.
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
