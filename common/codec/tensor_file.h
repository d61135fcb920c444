// Named matrices in one safetensors file (https://huggingface.co/docs/safetensors): 8 bytes header length, a JSON
// header, the values. Only what artifacts need: two dimensions, F32, BF16 and I8.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "common/codec/dense_matrix.h"

namespace scd {

using TensorMap = std::map<std::string, DenseMatrix>;

// A matrix whose values are all exact in BF16 is stored so; one whose rows are multiples of a scale each (a tensor
// "<name>.scale" of [rows, 1]) of at most 127 in I8; others in F32: reading gives back the same values. The same
// map gives the same bytes.
std::string serialize_tensors(const TensorMap& tensors);

// Throws Error kDataLoss naming `file` and the tensor or field: truncated, overlapping, wrong shape, unknown dtype,
// more than 2^31 values, values that are not finite.
TensorMap parse_tensors(std::span<const std::byte> bytes, const std::filesystem::path& file);

// The whole file. Throws Error kNotFound, or kDataLoss above `limit` bytes.
std::string read_bounded_file(const std::filesystem::path& file, size_t limit);

}  // namespace scd
