// Argument checks of the ops: std::invalid_argument with a sentence, before any memory is touched.
#pragma once

#include <initializer_list>
#include <string>

#include "kernels/matrix.h"

namespace scd::kernels {

inline std::string text_of(const char* text) { return text; }
inline std::string text_of(const std::string& text) { return text; }
inline std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(DType dtype);
std::string text_of(const ConstMatrix& m);  // "[rows, columns] dtype"
inline std::string text_of(const Matrix& m) { return text_of(ConstMatrix(m)); }

[[noreturn]] void throw_invalid_argument(std::initializer_list<std::string> parts);

// The parts of the sentence are put together only when the check fails.
template <class... Parts>
void require(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    throw_invalid_argument({text_of(parts)...});
}

// On the CPU, with a row stride that holds a row, and memory unless empty.
void require_cpu(const ConstMatrix& m, const char* name);

}  // namespace scd::kernels
