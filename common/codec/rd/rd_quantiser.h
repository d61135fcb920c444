// Uniform quantisation with a dead zone, and which of the static tables codes a component. Everything here that decides
// about bytes is exact in IEEE arithmetic, so encoder and decoder agree on any machine.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/codec/entropy/rans.h"
#include "common/codec/rd/rd_maps.h"

namespace scd {

inline constexpr size_t kRdTables = 18;
inline constexpr size_t kRdMaxLevels = 16;
// Symbol of the integer q in [-127, 127] is q + 128; this one says that the integer follows behind the stream.
inline constexpr uint8_t kRdEscape = 0;

// Table for components with this deviation / step: two to the octave, from 1/4 on.
size_t rd_table_of(float ratio);
// The ratio in the middle of a table's range: what it is trained at.
float rd_ratio_of(size_t table);
// Components below this deviation / step would nearly always be zero: they are not sent.
inline constexpr float kRdSmallestRatio = 0.25f;

int32_t rd_quantise(float value, float step);

class RdQuantiser {
 public:
  // Throws Error kFailedPrecondition naming what does not fit: no or too many levels, steps or deviations that do not
  // fall or are not positive, frequencies that are no table, an escape without a frequency.
  explicit RdQuantiser(RdQuantiserSettings settings);

  const RdQuantiserSettings& settings() const { return settings_; }
  int32_t levels() const { return static_cast<int32_t>(settings_.steps.size()); }
  // Components of a layer that a level sends.
  int64_t components(int32_t layer, int32_t level) const;

  // values [components, tokens] row-major -> a stream of symbols and what escapes them, appended to `out`.
  void encode(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out) const;
  // Fills values [components, tokens]; returns what is wrong with the bytes, or nothing.
  [[nodiscard]] std::string decode(int32_t layer, int32_t level, std::span<const std::byte> body,
                                   kernels::Matrix values) const;
  // No stream of so many values is longer.
  static size_t max_bytes(int64_t values);

 private:
  size_t table_of(int32_t layer, int32_t level, int64_t component) const;

  RdQuantiserSettings settings_;
  std::vector<RansTable> tables_;
};

}  // namespace scd
