// Payloads of a prompt's prefix become keys and values in the consumer's cache, unit by unit as a plan says: codes are
// decoded with the consumer's own anchors, and native spans run from the residual streams that were sent.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/codec/codec.h"
#include "common/model/native_layers.h"

namespace scd {

class PlanRebuild {
 public:
  // References must outlive it.
  struct Args {
    const Model& model;
    KvCache& cache;
    const PageTable& pages;
    std::span<const TokenId> tokens;  // the prefix
    int64_t exact_tokens = 0;         // tokens before it (sinks) are in the cache already, all layers
    const LayerPlan& plan;
    const Decoder& decoder;
    const NativeLayers* exact_layers = nullptr;  // runs layers [0, plan.exact_layers); null where there are none
    const Adapter* adapter = nullptr;            // as in SequenceChunk
    int64_t native_rows = 0;  // chunks that are here already run through a native span together, up to so many tokens
  };
  explicit PlanRebuild(Args args);

  // Whether apply() may be called: what it is predicted from has been computed, and no native span is running, or one
  // that takes these tokens along.
  bool applicable(int32_t first_layer, int64_t first_position, int64_t tokens) const;
  // DATA_LOSS names what is wrong with the payload; nothing of it is written then. After a residual stream a native
  // span is running(), to be run on with run_layer().
  Result<Done> apply(int32_t first_layer, int64_t first_position, int64_t tokens, std::span<const std::byte> payload);
  // The same of what the decoder has read ahead; nothing is left to go wrong.
  void apply(const CodeBlock& block);

  bool running() const { return running_ != nullptr; }
  int64_t running_tokens() const { return running_tokens_; }
  void run_layer();

  // The layer's keys and values are in the cache for all tokens before `end`, as far as native spans are concerned.
  bool span_done(size_t unit, int64_t end) const;

 private:
  bool takes_along(size_t unit, int64_t first_position, int64_t tokens) const;
  void add_to_span(NativeLayers& span, kernels::ConstMatrix residual);
  size_t run_before(size_t unit) const;
  const NativeLayers& run(size_t index) const;
  bool needs_anchor(size_t unit) const;
  void add_anchor(PayloadPlace& place);
  void place_decoded(const PayloadPlace& place);
  kernels::ConstMatrix anchor_for_decoder(const kernels::ConstMatrix& anchor);

  const Args args_;
  std::vector<std::unique_ptr<NativeLayers>> spans_;  // by unit; null for keys and values
  std::vector<KeptAnchor> kept_anchors_;              // by run, as run_before() counts them
  bool keeps_anchors_;                                // of long prefixes each block scales its own
  NativeLayers* running_ = nullptr;
  int64_t running_tokens_ = 0;
  kernels::GrowBuffer joined_memory_;
  kernels::Matrix joined_;  // residual streams of the running span, until it begins
  DecodedLayer decoded_;    // reused storage
  kernels::GrowBuffer anchor_memory_;
};

}  // namespace scd
