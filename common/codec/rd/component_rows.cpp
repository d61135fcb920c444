#include "common/codec/rd/component_rows.h"

#include <cmath>

namespace scd {
namespace {

// Values round up from here on: a larger dead zone than 1/2 costs a little distortion and saves more rate.
constexpr float kRoundUpFrom = 0.6f;
constexpr float kLargestMagnitude = 1e9f;

inline int32_t integer_of(float value, float step) {
  const float scaled = std::abs(value) / step + (1 - kRoundUpFrom);
  const auto magnitude = static_cast<int32_t>(scaled < kLargestMagnitude ? scaled : kLargestMagnitude);
  return value < 0 ? -magnitude : magnitude;
}

inline float value_of(int32_t integer, CellPlace cell) {
  const auto centre = static_cast<float>(integer);
  const float shift = integer > 0 ? cell.shift : integer < 0 ? -cell.shift : 0.0f;
  return (centre + shift) * cell.step;
}

}  // namespace

int32_t rd_quantise(float value, float step) { return integer_of(value, step); }

bool quantise_row(std::span<const float> values, float step, SymbolRange range, int32_t centre, uint8_t* symbols) {
  int32_t all_inside = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    const int32_t integer = integer_of(values[i], step);
    const int32_t inside = -static_cast<int32_t>((integer >= range.low) & (integer <= range.high));  // all bits or none
    all_inside &= inside;
    symbols[i] = static_cast<uint8_t>((integer + centre) & inside);  // & 0 is kRdEscape
  }
  return all_inside == 0;
}

float rd_value_of(int32_t integer, CellPlace cell) { return value_of(integer, cell); }

bool dequantise_row(std::span<const uint8_t> symbols, int32_t centre, CellPlace cell, float* values) {
  int32_t escapes = 0;
  for (size_t i = 0; i < symbols.size(); ++i) {
    escapes |= static_cast<int32_t>(symbols[i] == kRdEscape);
    values[i] = value_of(int32_t{symbols[i]} - centre, cell);
  }
  return escapes != 0;
}

}  // namespace scd
