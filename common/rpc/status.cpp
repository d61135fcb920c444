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
  const int code = status.error_code();
  // UNAUTHENTICATED (16) is the one code our vocabulary does not have.
  if (code == grpc::StatusCode::UNAUTHENTICATED) return {ErrorCode::kPermissionDenied, status.error_message()};
  if (code < static_cast<int>(ErrorCode::kCancelled) || code > static_cast<int>(ErrorCode::kDataLoss)) {
    return {ErrorCode::kUnknown, status.error_message()};
  }
  return {static_cast<ErrorCode>(code), status.error_message()};
}

}  // namespace scd
