// Uniform quantisation with a dead zone, and which of the static tables codes a component. Everything here that decides
// about bytes is exact in IEEE arithmetic (component_rows.h), so encoder and decoder agree on any machine.
//
// Two forms of a body: entropy-coded, and packed into a fixed number of bits a component, which takes more bytes and
// less time. A body says which one it is; a decoder reads both.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/codec/entropy/rans.h"
#include "common/codec/rd/component_rows.h"
#include "common/codec/rd/rd_maps.h"
#include "kernels/coded_streams.h"

namespace scd {

inline constexpr size_t kRdTables = 18;
inline constexpr size_t kRdMaxLevels = 16;

// Table for components with this deviation / step: two to the octave, from this one on.
inline constexpr float kRdFirstRatio = 0.25f;
size_t rd_table_of(float ratio);
// The ratio in the middle of a table's range: what it is trained at.
float rd_ratio_of(size_t table);
// Components below this deviation / step would nearly always be zero, for about as much loss as their bits would save:
// they are not sent.
inline constexpr float kRdSmallestRatio = 0.35f;

// The entropy-coded form is cut into streams of whole components, which coders read and write side by side: a chain of
// states is as long as a stream. So many components each, the last has the rest: at most so many symbols, or one
// component.
inline constexpr int64_t kRdStreamSymbols = 1 << 16;
inline int64_t rd_stream_components(int64_t tokens) { return std::max(int64_t{1}, kRdStreamSymbols / tokens); }
int64_t rd_streams(int64_t components, int64_t tokens);  // at least one
// Of chunks of tokens side by side, a chunk's streams after each other.
std::vector<kernels::StreamPart> rd_stream_parts(int64_t components, std::span<const int64_t> chunk_tokens);
// Of the streams of those parts: each chunk's.
std::vector<std::span<const kernels::CodedStream>> rd_streams_by_chunk(std::span<const kernels::CodedStream> streams,
                                                                       int64_t components,
                                                                       std::span<const int64_t> chunk_tokens);

enum class RdForm : uint8_t { kEntropy = 0, kPacked = 1 };

class RdQuantiser {
 public:
  // Throws Error kFailedPrecondition naming what does not fit: no or too many levels, steps or deviations that do not
  // fall or are not positive, frequencies that are no table, an escape without a frequency.
  explicit RdQuantiser(RdQuantiserSettings settings);

  const RdQuantiserSettings& settings() const { return settings_; }
  int32_t levels() const { return static_cast<int32_t>(settings_.steps.size()); }
  // Components of a layer that a level sends.
  int64_t components(int32_t layer, int32_t level) const;

  // values [components, tokens] row-major -> symbols and what escapes them, appended to `out`.
  void encode(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out,
              RdForm form = RdForm::kEntropy) const;
  // Fills values [components, tokens]; returns what is wrong with the bytes, or nothing.
  [[nodiscard]] std::string decode(int32_t layer, int32_t level, std::span<const std::byte> body,
                                   kernels::Matrix values) const;
  // No body of so many values is longer, in either form.
  static size_t max_bytes(int64_t values);

  // What the entropy-coded form is made of, for coders elsewhere: which of kRdTables codes a component, the tables, and
  // where they place values in their cell.
  size_t table_of(int32_t layer, int32_t level, int64_t component) const;
  const RansTable& rans_table(size_t table) const { return tables_[table].rans; }
  float shift(size_t table) const { return tables_[table].shift; }
  // A body in that form, of its streams and the values that escape them; and a body's streams, or nothing where it is
  // cut off or packed.
  static void append_entropy_body(std::span<const kernels::CodedStream> streams, ByteBuffer& out);
  static std::optional<std::vector<kernels::CodedStream>> entropy_streams(std::span<const std::byte> body,
                                                                          int64_t components, int64_t tokens);

 private:
  // What codes the components whose deviation / step is in one range.
  struct Table {
    RansTable rans;
    SymbolRange known;  // around 0: every integer in it has a symbol
    int packed_bits;    // of a code of the packed form
    float shift;
  };
  static Table make_table(const RdQuantiserSettings& settings, size_t index);
  void encode_entropy(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out) const;
  void encode_packed(int32_t layer, int32_t level, kernels::ConstMatrix values, ByteBuffer& out) const;
  std::string decode_entropy(int32_t layer, int32_t level, std::span<const kernels::CodedStream> streams,
                             kernels::Matrix values) const;
  std::string decode_packed(int32_t layer, int32_t level, std::span<const std::byte> body,
                            kernels::Matrix values) const;

  RdQuantiserSettings settings_;
  std::vector<Table> tables_;
};

}  // namespace scd
