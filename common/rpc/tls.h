// gRPC credentials from PEM files.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "common/rpc/options.h"

namespace scd {

// Throw Error: NOT_FOUND (a file cannot be read), INVALID_ARGUMENT (a certificate without its key or the other way).
std::shared_ptr<grpc::ServerCredentials> server_credentials(const TlsOptions& tls);
std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const TlsOptions& tls);

}  // namespace scd
