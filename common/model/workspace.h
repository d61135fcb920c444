// Memory of a GPU that the steps of a server work in, beside weights and KV pages: counted from the limits before any
// of it is taken, so that pages leave room for it (kv_cache.gpu_memory_fraction).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/model/model_config.h"

namespace scd {

inline constexpr int64_t kResidualStreams = 4;  // that a codec reads in a step, at most as a rule
inline constexpr int64_t kUnitLayers = 4;       // of an artifact, at most as a rule

struct WorkspaceLimits {
  int64_t step_tokens = 0;     // rows of the largest forward pass
  int64_t passes = 1;          // of that size that are under way at once
  int64_t further_passes = 0;  // smaller ones beside them
  int64_t further_rows = 0;    // that those have together
  int64_t batch = 0;           // answers whose next token is computed at once; 0: no logits
  int64_t sequences = 1;       // of a pass
  int64_t coded_tokens = 0;    // of all prompts, whose codes are made or read at once; 0: no codec works on the GPU
  int64_t unit_layers = 1;     // whose keys and values a codec codes together
  bool adapters = false;       // rows of a pass may have some that are not merged
  bool anchored = false;       // codecs read residual streams beside them
};

// rows x columns elements of so many bytes.
struct WorkspaceTerm {
  std::string_view what;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t element_bytes = 0;
  size_t bytes() const { return static_cast<size_t>(rows * columns * element_bytes); }
};

// All workspaces, widest use assumed everywhere: what keeps to the limits takes no more; recorded steps come beside
// them. Prompts with more coded tokens and adapters of unusual ranks take more. What lies there for longer than a
// prompt is not counted: weights, pages, adapters, and maps of codecs.
std::vector<WorkspaceTerm> workspace_terms(const ModelConfig& config, kernels::DType precision,
                                           const WorkspaceLimits& limits);
size_t workspace_bytes(const ModelConfig& config, kernels::DType precision, const WorkspaceLimits& limits);

}  // namespace scd
