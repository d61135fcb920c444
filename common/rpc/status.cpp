#include "common/rpc/status.h"

namespace scd {

// ErrorCode has the values of grpc::StatusCode; a few ends of both tables hold the rest in place.
static_assert(static_cast<int>(ErrorCode::kCancelled) == grpc::StatusCode::CANCELLED);
static_assert(static_cast<int>(ErrorCode::kInvalidArgument) == grpc::StatusCode::INVALID_ARGUMENT);
static_assert(static_cast<int>(ErrorCode::kResourceExhausted) == grpc::StatusCode::RESOURCE_EXHAUSTED);
static_assert(static_cast<int>(ErrorCode::kFailedPrecondition) == grpc::StatusCode::FAILED_PRECONDITION);
static_assert(static_cast<int>(ErrorCode::kDataLoss) == grpc::StatusCode::DATA_LOSS);

grpc::Status to_status(const Failure& failure) {
  return {static_cast<grpc::StatusCode>(failure.code), failure.message};
}

Failure to_failure(const grpc::Status& status) {
  SCD_CHECK(!status.ok(), "to_failure() takes a status that is not OK");
  return to_failure(static_cast<uint32_t>(status.error_code()), status.error_message());
}

Failure to_failure(uint32_t code, const std::string& message) {
  // UNAUTHENTICATED (16) is the one code our vocabulary does not have.
  if (code == grpc::StatusCode::UNAUTHENTICATED) return {ErrorCode::kPermissionDenied, message};
  if (code < static_cast<uint32_t>(ErrorCode::kCancelled) || code > static_cast<uint32_t>(ErrorCode::kDataLoss)) {
    return {ErrorCode::kUnknown, message};
  }
  return {static_cast<ErrorCode>(code), message};
}

}  // namespace scd
