// A LoRA adapter beside the base's weights instead of in them: many adapters share one loaded base, and each sequence
// of a batch has its own.
#pragma once

#include <array>
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

  // Null where it leaves the layer as it is.
  const kernels::PackedLowRank* find(int32_t layer, AdaptedLinear linear) const;
  const kernels::PackedLowRank* lm_head() const { return lm_head_ ? &*lm_head_ : nullptr; }
  size_t bytes() const;  // packed, as held in memory
  // The same as far as the size of its file tells: numbers have two bytes at least there. 0: there is no file.
  static size_t bytes_by_file(const std::filesystem::path& directory, kernels::DType precision);

 private:
  static constexpr size_t kLinears = 4;
  std::vector<std::array<std::optional<kernels::PackedLowRank>, kLinears>> layers_;
  std::optional<kernels::PackedLowRank> lm_head_;
};

}  // namespace scd
