// What the regressions of `rd` see of a chunk (rd_maps.h): x of the producer, y of the consumer, and their anchors.
#pragma once

#include <optional>

#include "common/codec/codec.h"
#include "common/codec/codec_model.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/rd/rd_maps.h"
#include "kernels/linear.h"

namespace scd {

// Of y: the consumer's unit.
int64_t rd_state_width(const CodecModel& consumer, const CodedUnit& unit);
// Of x without an anchor: what the producer holds of it.
int64_t rd_source_width(const CodecModel& producer, const CodedUnit& unit, const UnitSource& source);

// What a decoder makes of codes and anchor: map^T c + anchor_map^T g + mean and what its network adds, [tokens, dims of
// y]. codes [components sent, tokens]; anchor h [tokens, hidden of B], normalised, or [tokens, 0] without one.
DenseMatrix reconstruct(const RdUnitDecoder& unit, kernels::ConstMatrix codes, kernels::ConstMatrix anchor);

// The same without the network, multiplied in BF16.
class RdRoundedUnit {
 public:
  explicit RdRoundedUnit(const RdUnitDecoder& unit);
  // Valid until the thread's next call.
  kernels::Matrix reconstruct(kernels::ConstMatrix codes, kernels::ConstMatrix anchor) const;

 private:
  int64_t directions_;
  std::optional<kernels::PackedLinear> basis_;
  kernels::PackedLinear product_;  // of [directions, components], with the mean as its bias
};

// The residual stream over the root mean square of the anchor's, row by row.
DenseMatrix rd_residual(kernels::ConstMatrix residual, kernels::ConstMatrix anchor);

// Each row divided by its root mean square.
DenseMatrix normalised_rows(kernels::ConstMatrix rows);

}  // namespace scd
