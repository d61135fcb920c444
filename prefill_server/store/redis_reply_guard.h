// Looks at a Redis server's answers before hiredis does: hiredis makes room for as many elements as the head of an
// array announces, and for texts of any length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/error.h"

namespace scd {

// Of the answers to commands that were sent together.
struct RedisReplyLimits {
  size_t value_bytes = 0;  // of each text
  size_t all_bytes = 0;    // of all answers as they arrive
  int64_t elements = 0;    // of all arrays; 0: none is expected
};

class RedisReplyGuard {
 public:
  explicit RedisReplyGuard(const RedisReplyLimits& limits) : limits_(limits) {}
  // The next bytes, cut anywhere. After DATA_LOSS neither they nor any that follow may be read.
  Result<Done> take(std::span<const char> bytes);

 private:
  Result<Done> end_line();

  const RedisReplyLimits limits_;
  size_t taken_ = 0;
  size_t skip_ = 0;   // bytes of a text that are still to come
  std::string line_;  // its beginning
  size_t line_bytes_ = 0;
  bool after_return_ = false;
  int64_t elements_ = 0;
};

}  // namespace scd
