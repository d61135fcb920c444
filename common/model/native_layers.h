// A run of a model's layers over a prompt's prefix, chunk by chunk and layer by layer: what a consumer computes itself
// while the rest of its cache arrives as codes. Begins from token ids or, in the middle of the model, from a residual
// stream that was sent. Of the last layer only keys and values are computed.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/model/forward.h"
#include "kernels/grow_buffer.h"

namespace scd {

// Not thread-safe, as ForwardPass. References must outlive it.
class NativeLayers {
 public:
  struct Args {
    const Model& model;
    KvCache& cache;
    const PageTable& pages;
    std::span<const TokenId> tokens;  // the prefix
    int64_t first_token = 0;          // tokens before it are in the cache already (sinks)
    int32_t first_layer = 0;
    int32_t layers = 1;
    bool keep_anchor = false;
    const Adapter* adapter = nullptr;  // as in SequenceChunk
  };
  explicit NativeLayers(Args args);

  // Keys and values of the layers are in the cache for tokens before this one.
  int64_t done_tokens() const { return done_tokens_; }
  bool running() const { return pass_ != nullptr; }
  // The next `count` tokens from their ids (first_layer 0), or from [count, hidden] F32.
  void begin(int64_t count);
  void begin(kernels::ConstMatrix residual);
  // One layer of the chunk that was begun.
  void run_layer();
  void run_chunk() {
    while (running()) run_layer();
  }

  // The residual stream before the last layer of tokens that are done, [count, hidden] F32 on the
  // model's device; with keep_anchor.
  kernels::ConstMatrix anchor(int64_t first_token, int64_t count) const;

 private:
  SequenceChunk chunk(int64_t count) const;

  const Args args_;
  int64_t done_tokens_;
  kernels::GrowBuffer anchors_memory_;
  kernels::Matrix anchors_;  // [tokens.size(), hidden] on the model's device, undefined before first_token
  std::unique_ptr<ForwardPass> pass_;
};

}  // namespace scd
