// Broken invariants end the process with a message: going on would serve wrong answers.
#pragma once

#include <source_location>
#include <string_view>

namespace scd {

[[noreturn]] void check_failed(std::string_view condition, std::string_view message, std::source_location where);

}  // namespace scd

#define SCD_CHECK(condition, message)                                                            \
  do {                                                                                           \
    if (!(condition)) ::scd::check_failed(#condition, message, std::source_location::current()); \
  } while (false)
