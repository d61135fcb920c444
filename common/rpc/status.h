// The one place where the project's errors become gRPC statuses and come back.
#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>

#include "common/base/error.h"

namespace scd {

grpc::Status to_status(const Failure& failure);
Failure to_failure(const grpc::Status& status);  // of a status that is not OK
// A code that a peer sent as a number; anything that is no error becomes UNKNOWN.
Failure to_failure(uint32_t code, const std::string& message);

}  // namespace scd
