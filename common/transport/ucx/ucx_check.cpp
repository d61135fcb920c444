#include "common/transport/ucx/ucx_check.h"

namespace scd {

ErrorCode ucx_error_code(ucs_status_t status) {
  switch (status) {
    case UCS_ERR_CANCELED: return ErrorCode::kCancelled;
    case UCS_ERR_TIMED_OUT: return ErrorCode::kDeadlineExceeded;
    case UCS_ERR_NO_MEMORY:
    case UCS_ERR_NO_RESOURCE:
    case UCS_ERR_EXCEEDS_LIMIT: return ErrorCode::kResourceExhausted;
    case UCS_ERR_INVALID_PARAM:
    case UCS_ERR_INVALID_ADDR: return ErrorCode::kInvalidArgument;
    case UCS_ERR_UNSUPPORTED:
    case UCS_ERR_NOT_IMPLEMENTED: return ErrorCode::kUnimplemented;
    case UCS_ERR_NO_DEVICE: return ErrorCode::kFailedPrecondition;
    case UCS_ERR_MESSAGE_TRUNCATED: return ErrorCode::kDataLoss;
    case UCS_ERR_NOT_CONNECTED:
    case UCS_ERR_CONNECTION_RESET:
    case UCS_ERR_UNREACHABLE:
    case UCS_ERR_REJECTED:
    case UCS_ERR_BUSY:
    case UCS_ERR_IO_ERROR:
    case UCS_ERR_SOME_CONNECTS_FAILED:
    case UCS_ERR_ENDPOINT_TIMEOUT: return ErrorCode::kUnavailable;
    default: return ErrorCode::kInternal;
  }
}

Failure ucx_failure(ucs_status_t status, const std::string& what) {
  return {ucx_error_code(status), what + ": " + ucs_status_string(status)};
}

void ucx_check(ucs_status_t status, const std::string& what, std::source_location where) {
  if (status == UCS_OK) return;
  Failure failure = ucx_failure(status, what);
  failure.message += " (" + std::string(where.file_name()) + ":" + std::to_string(where.line()) + ")";
  throw Error(failure);
}

}  // namespace scd
