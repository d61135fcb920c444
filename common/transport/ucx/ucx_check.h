// UCX status codes in the project's terms.
#pragma once

#include <ucs/type/status.h>

#include <source_location>
#include <string>

#include "common/base/error.h"

namespace scd {

// What a status means to a caller: UNAVAILABLE for a lost or unreachable peer, CANCELLED, DEADLINE_EXCEEDED, ...
ErrorCode ucx_error_code(ucs_status_t status);
Failure ucx_failure(ucs_status_t status, const std::string& what);

// Throws Error unless the status is UCS_OK. `what` names the call and its object.
void ucx_check(ucs_status_t status, const std::string& what,
               std::source_location where = std::source_location::current());

}  // namespace scd
