// A LoRA adapter beside the base's weights instead of in them: many adapters share one loaded base, and each sequence
// of a batch has its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "common/model/lora.h"
#include "common/model/model.h"
#include "kernels/low_rank.h"

namespace scd {

// The linear layers of a model layer, fused as LayerWeights has them.
enum class AdaptedLinear : uint8_t { kQkv, kOutput, kGateUp, kDown };

// Immutable after loading. What it adds is in the base's precision and on its device.
class Adapter {
 public:
  // Throws Error as LoraAdapter does, and for ranks above PackedLowRank::kMaxRank (UNIMPLEMENTED).
  Adapter(const Model& base, const std::filesystem::path& directory);

  // What it adds, null where it leaves a layer as it is.
  const kernels::LowRankSet& factors() const { return set_; }
  static constexpr int64_t kHead = 0;
  static constexpr int64_t index_of(int32_t layer, AdaptedLinear linear) {
    return 1 + layer * kLinears + static_cast<int64_t>(linear);
  }
  size_t bytes() const;  // packed, as held in memory
  // The same as far as the size of its file tells: numbers have two bytes at least there. 0: there is no file.
  static size_t bytes_by_file(const std::filesystem::path& directory, kernels::DType precision);

 private:
  static constexpr int64_t kLinears = 4;
  std::vector<std::optional<kernels::PackedLowRank>> packed_;
  kernels::LowRankSet set_;  // of them
};

}  // namespace scd
