// What the regressions of `rd` see of a chunk (rd_maps.h): x of the producer, y of the consumer, and their anchors.
#pragma once

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

// What a decoder makes of codes and anchor: map^T c + anchor_map^T h + mean and what its network adds, [tokens, dims of
// y]. codes [components sent, tokens]; anchor [tokens, hidden of B], normalised, or [tokens, 0] without one.
DenseMatrix reconstruct(const RdUnitDecoder& unit, kernels::ConstMatrix codes, kernels::ConstMatrix anchor);

// The same without the network as one product in BF16: of [normalised anchor, components], with the mean as its bias.
kernels::PackedLinear rounded_product(const RdUnitDecoder& unit);

// The residual stream over the root mean square of the anchor's, row by row.
DenseMatrix rd_residual(kernels::ConstMatrix residual, kernels::ConstMatrix anchor);

// Each row divided by its root mean square.
DenseMatrix normalised_rows(kernels::ConstMatrix rows);

}  // namespace scd
