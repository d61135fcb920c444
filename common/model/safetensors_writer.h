// Writes a safetensors file tensor by tensor, so that a checkpoint never has to fit in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "kernels/matrix.h"

namespace scd {

struct TensorSpec {
  std::string name;
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<int64_t> shape;

  int64_t elements() const;
  uint64_t bytes() const { return static_cast<uint64_t>(elements()) * kernels::size_of(dtype); }
};

// Throws Error naming the path where it cannot write.
class SafetensorsWriter {
 public:
  // The header lists `tensors` in this order; their bytes follow through write() in the same order.
  SafetensorsWriter(const std::filesystem::path& path, std::span<const TensorSpec> tensors);
  void write(std::span<const std::byte> bytes);
  void finish();  // checks that every byte was written, and flushes

 private:
  std::filesystem::path path_;
  std::ofstream out_;
  uint64_t missing_ = 0;
};

}  // namespace scd
