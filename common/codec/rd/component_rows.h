// The loops of the quantiser over the values of one component, written to be vectorised. Each value's arithmetic is
// IEEE's and nothing else (no contraction, no reciprocal instead of a division), so that every machine makes the same
// symbols of the same values and the same values of the same symbols.
#pragma once

#include <cstdint>
#include <span>

namespace scd {

// Symbols are bytes: the integer plus `centre`; 0 says that the integer stands elsewhere.
inline constexpr uint8_t kRdEscape = 0;

// Values that are not numbers, and magnitudes over 1e9, become 1e9.
int32_t rd_quantise(float value, float step);

struct SymbolRange {
  int32_t low = 0;  // integers in [low, high] have a symbol; both lie in [-127, 127]
  int32_t high = 0;
};

// symbols[i] = integer of values[i] + centre, kRdEscape where it lies outside of `range`. True when one does.
bool quantise_row(std::span<const float> values, float step, SymbolRange range, int32_t centre, uint8_t* symbols);

// How integers become values again.
struct CellPlace {
  float step = 0;
  float shift = 0;  // of values within their cell, in steps, away from zero
};

float rd_value_of(int32_t integer, CellPlace cell);
// values[i] = value of symbols[i] - centre, escapes included. True when there are escapes among them.
bool dequantise_row(std::span<const uint8_t> symbols, int32_t centre, CellPlace cell, float* values);

}  // namespace scd
