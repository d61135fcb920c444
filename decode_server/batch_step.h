// One forward pass over tokens of several sequences: one of each answer under way, and chunks of prompts. It runs layer
// by layer, so that a cancelled request need not wait for its end; only then anything of it counts.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/model/forward.h"
#include "kernels/queue_point.h"

namespace scd {

class Sequence;
struct ServedModel;

class BatchStep {
 public:
  struct Member {
    Sequence* sequence = nullptr;  // null: it has ended
    int64_t tokens = 0;            // that this step computes of it
    bool samples = false;          // its last token is followed by a new one
  };
  BatchStep(const Model& model, KvCache& cache, std::vector<Member> members);

  const std::vector<Member>& members() const { return members_; }
  bool contains(const Sequence& sequence) const;
  // The sequence ends: what the pass still writes to stays taken, and its model loaded, until the step is over.
  void leave(Sequence& sequence);

  bool done() const;
  // Queues the next layer and returns when the one before it is done: a GPU has work while its thread looks at what
  // arrived. The last one is still to be waited for.
  void run_layer();
  // Until all that is queued of it is done.
  void wait() const;
  // When it is done: the logits of the members that sample, in their order, on the model's device, and the caller's
  // to change. Some do.
  kernels::Matrix logits();
  bool anyone_samples() const { return !sampled_rows_.empty(); }

 private:
  const Model& model_;
  std::vector<Member> members_;
  std::vector<int64_t> sampled_rows_;
  struct LeftBehind {
    std::shared_ptr<const ServedModel> model;  // shared as ServedModel says: the pass reads its adapter
    PageTable pages;
  };
  std::vector<LeftBehind> left_behind_;
  std::unique_ptr<ForwardPass> pass_;
  int32_t layers_run_ = 0;
  std::array<kernels::QueuePoint, 2> behind_layer_;  // of this and of the one before, in turns
};

}  // namespace scd
