#include "common/codec/integer_body.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/base/half.h"

namespace scd {
namespace {

constexpr float kLargestHalf = 65504.0f;
constexpr size_t kGroupBytes = 4;  // base, step

struct Grid {
  float base = 0;
  float step = 0;
};

// A matrix cut into groups that share a grid: `rows` x `columns` values each, ordered by row block, then column block.
struct Groups {
  int64_t rows;
  int64_t columns;

  int64_t count(const kernels::ConstMatrix& of) const {
    return (of.rows + rows - 1) / rows * ((of.columns + columns - 1) / columns);
  }
  int64_t of(int64_t row, int64_t column, int64_t width) const {
    return row / rows * (width / columns) + column / columns;
  }
};

size_t code_bytes(int64_t count, int bits) { return static_cast<size_t>((count * bits + 7) / 8); }

// FP16 both ways, so that encoder and decoder see the same grid. The top value may be clipped by the rounding.
Grid make_grid(float low, float high, int levels) {
  const float base = from_half(to_half(std::clamp(low, -kLargestHalf, kLargestHalf)));
  const float step = from_half(to_half(std::clamp((high - base) / static_cast<float>(levels), 0.0f, kLargestHalf)));
  return {base, step};
}

void encode_matrix(const kernels::ConstMatrix& source, const Groups& groups, int bits, ByteBuffer& out) {
  const int levels = (1 << bits) - 1;
  const auto count = static_cast<size_t>(groups.count(source));
  std::vector<float> low(count, INFINITY), high(count, -INFINITY);
  for (int64_t row = 0; row < source.rows; ++row) {
    const float* values = source.row<float>(row);
    for (int64_t column = 0; column < source.columns; ++column) {
      const auto group = static_cast<size_t>(groups.of(row, column, source.columns));
      low[group] = std::min(low[group], values[column]);
      high[group] = std::max(high[group], values[column]);
    }
  }
  std::vector<Grid> grids(count);
  for (size_t i = 0; i < count; ++i) {
    grids[i] = make_grid(low[i], high[i], levels);
    const std::array<uint16_t, 2> halves = {to_half(grids[i].base), to_half(grids[i].step)};
    const auto bytes = std::as_bytes(std::span(halves));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  const size_t start = out.size();
  out.resize(start + code_bytes(source.rows * source.columns, bits));
  int64_t index = 0;
  for (int64_t row = 0; row < source.rows; ++row) {
    const float* values = source.row<float>(row);
    for (int64_t column = 0; column < source.columns; ++column, ++index) {
      const Grid& grid = grids[static_cast<size_t>(groups.of(row, column, source.columns))];
      const float scaled = grid.step > 0 ? (values[column] - grid.base) / grid.step : 0.0f;
      const auto code = static_cast<unsigned>(std::clamp(std::nearbyint(scaled), 0.0f, static_cast<float>(levels)));
      std::byte& target = out[start + static_cast<size_t>(index * bits / 8)];
      target |= static_cast<std::byte>(code << (index * bits % 8));
    }
  }
}

// Consumes its part of `body`, whose length was checked.
std::string decode_matrix(std::span<const std::byte>& body, const Groups& groups, int bits,
                          const kernels::Matrix& target) {
  const auto count = static_cast<size_t>(groups.count(target));
  std::vector<Grid> grids(count);
  for (size_t i = 0; i < count; ++i) {
    std::array<uint16_t, 2> halves;
    std::memcpy(halves.data(), body.data() + i * kGroupBytes, kGroupBytes);
    grids[i] = {from_half(halves[0]), from_half(halves[1])};
    if (!std::isfinite(grids[i].base) || !std::isfinite(grids[i].step)) return "a group's base or step is not finite";
  }
  body = body.subspan(count * kGroupBytes);
  const unsigned mask = (1U << bits) - 1;
  int64_t index = 0;
  for (int64_t row = 0; row < target.rows; ++row) {
    auto* values = target.row<float>(row);
    for (int64_t column = 0; column < target.columns; ++column, ++index) {
      const Grid& grid = grids[static_cast<size_t>(groups.of(row, column, target.columns))];
      const auto byte = static_cast<unsigned>(body[static_cast<size_t>(index * bits / 8)]);
      values[column] = grid.base + grid.step * static_cast<float>(byte >> (index * bits % 8) & mask);
    }
  }
  body = body.subspan(code_bytes(target.rows * target.columns, bits));
  return "";
}

}  // namespace

IntegerBody::IntegerBody(int bits, int64_t kv_heads, int64_t head_dim)
    : bits_(bits), heads_(kv_heads), head_dim_(head_dim) {
  SCD_CHECK(bits == 8 || bits == 4, "int8 and int4");
}

size_t IntegerBody::max_bytes(int64_t tokens) const {
  const int64_t width = heads_ * head_dim_;
  const int64_t groups = (tokens + kGroupTokens - 1) / kGroupTokens * width + tokens * heads_;
  return static_cast<size_t>(groups) * kGroupBytes + 2 * code_bytes(tokens * width, bits_);
}

void IntegerBody::encode(kernels::ConstMatrix keys, kernels::ConstMatrix values, ByteBuffer& out) const {
  out.reserve(out.size() + max_bytes(keys.rows));
  encode_matrix(keys, {kGroupTokens, 1}, bits_, out);
  encode_matrix(values, {1, head_dim_}, bits_, out);
}

std::string IntegerBody::decode(std::span<const std::byte> body, kernels::Matrix keys, kernels::Matrix values) const {
  const size_t expected = max_bytes(keys.rows);
  if (body.size() != expected) return wrong_length(body.size(), expected);
  if (std::string problem = decode_matrix(body, {kGroupTokens, 1}, bits_, keys); !problem.empty()) return problem;
  return decode_matrix(body, {1, head_dim_}, bits_, values);
}

}  // namespace scd
