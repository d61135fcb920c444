// The project's one error vocabulary: canonical gRPC codes, thrown as Error while starting, configuring and
// connecting, returned as Result<T> while serving.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "common/base/check.h"

namespace scd {

// Numeric values are those of grpc::StatusCode, so that common/rpc maps them without a table.
enum class ErrorCode {
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
};

std::string_view to_string(ErrorCode code);  // "INVALID_ARGUMENT", ...

// What went wrong, as a value. The message says what was wrong, where, and what would be right.
struct Failure {
  ErrorCode code = ErrorCode::kUnknown;
  std::string message;
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  explicit Error(const Failure& failure) : Error(failure.code, failure.message) {}
  ErrorCode code() const { return code_; }
  Failure failure() const { return {code_, what()}; }

 private:
  ErrorCode code_;
};

// A value or a Failure. Use Result<Done> where there is nothing to return.
struct Done {};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}            // NOLINT: implicit by design
  Result(Failure failure) : state_(std::move(failure)) {}  // NOLINT: implicit by design

  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }
  T& value() & {
    SCD_CHECK(ok(), "Result::value() on a failure");
    return std::get<T>(state_);
  }
  const T& value() const& {
    SCD_CHECK(ok(), "Result::value() on a failure");
    return std::get<T>(state_);
  }
  T&& value() && {
    SCD_CHECK(ok(), "Result::value() on a failure");
    return std::get<T>(std::move(state_));
  }
  const Failure& failure() const {
    SCD_CHECK(!ok(), "Result::failure() on a value");
    return std::get<Failure>(state_);
  }
  // The value, or the failure thrown as Error: for start-up code.
  T value_or_throw() && {
    if (!ok()) throw Error(failure());
    return std::get<T>(std::move(state_));
  }

 private:
  std::variant<T, Failure> state_;
};

}  // namespace scd
