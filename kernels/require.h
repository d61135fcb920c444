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
std::string text_of(Device device);
std::string text_of(const ConstMatrix& m);  // "[rows, columns] dtype"
inline std::string text_of(const Matrix& m) { return text_of(ConstMatrix(m)); }

[[noreturn]] void throw_invalid_argument(std::initializer_list<std::string> parts);

// The parts of the sentence are put together only when the check fails.
template <class... Parts>
void require(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    throw_invalid_argument({text_of(parts)...});
}

// With a row stride that holds a row, and memory unless empty, on a device that this build has kernels for.
void require_matrix(const ConstMatrix& m, const char* name);
void require_on(Device device, const ConstMatrix& m, const char* name);  // the same, and on `device`
inline void require_cpu(const ConstMatrix& m, const char* name) { require_on(Device::kCpu, m, name); }

// Throws where the build has no kernels for it.
void require_device_in_build(Device device);

}  // namespace scd::kernels
