// The forms of attention on CUDA, and what they share.
#pragma once

#include "kernels/attention.h"

namespace scd::kernels::cuda {

// Tensor cores, blocks of kQueryTile rows of one query head: BF16 pages of 16 tokens, heads of 64 or 128.
bool takes_tiles(const AttentionArgs& args);
void attention_tiles(const AttentionArgs& args, const DeviceSequences& sequences);

// The same on Hopper's asynchronous tensor cores.
bool takes_warpgroups(const AttentionArgs& args);
void attention_warpgroups(const AttentionArgs& args, const DeviceSequences& sequences);

// One row a sequence (decoding): the query heads of a KV head together, the context split over blocks. BF16 pages of a
// power of two tokens, heads of 32, 64, 128 or 256, up to 8 query heads a KV head.
bool takes_rows(const AttentionArgs& args, const DeviceSequences& sequences);
void attention_rows(const AttentionArgs& args, const DeviceSequences& sequences);

// Anything, slowly: a block a row and head, in FP32.
void attention_any(const AttentionArgs& args, const DeviceSequences& sequences);

}  // namespace scd::kernels::cuda
