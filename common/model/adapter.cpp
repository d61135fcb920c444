#include "common/model/adapter.h"

#include <array>
#include <string>
#include <system_error>

#include "common/base/error.h"

namespace scd {
namespace {

struct Part {
  std::string module;
  int64_t outputs = 0;
};

std::optional<kernels::PackedLowRank> pack(const LoraAdapter& adapter, const Model& base, std::span<const Part> parts,
                                           int64_t in) {
  std::vector<LoraFactors> factors;  // owns what the parts point to
  factors.reserve(parts.size());
  std::vector<kernels::LowRankPart> packed;
  int64_t outputs = 0;
  for (const Part& part : parts) {
    const int64_t first = outputs;
    outputs += part.outputs;
    auto found = adapter.factors(part.module, part.outputs, in);
    if (!found) continue;
    if (found->rank > kernels::PackedLowRank::kMaxRank) {
      throw Error(ErrorCode::kUnimplemented, adapter.checkpoint().files()[0].path().string() + ": " + part.module +
                                                 " has rank " + std::to_string(found->rank) +
                                                 "; adapters that are not merged may have ranks up to " +
                                                 std::to_string(kernels::PackedLowRank::kMaxRank));
    }
    for (float& value : found->b) value *= found->scale;
    const LoraFactors& kept = factors.emplace_back(std::move(*found));
    packed.push_back({.first_output = first,
                      .a = kernels::matrix(kept.a.data(), kept.rank, in),
                      .b = kernels::matrix(kept.b.data(), part.outputs, kept.rank)});
  }
  if (packed.empty()) return std::nullopt;
  return kernels::PackedLowRank(packed, in, outputs, base.precision(), base.device());
}

}  // namespace

Adapter::Adapter(const Model& base, const std::filesystem::path& directory) {
  const LoraAdapter adapter(directory);
  const ModelConfig& config = base.config();
  adapter.check_modules(linear_modules(config));
  packed_.push_back(std::nullopt);
  if (!config.tied_embeddings) {
    const Part head{"lm_head", config.vocab};
    packed_.back() = pack(adapter, base, std::span(&head, 1), config.hidden);
  }
  const int64_t query_width = int64_t{config.query_heads} * config.head_dim;
  const int64_t kv_width = int64_t{config.kv_heads} * config.head_dim;
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const std::array qkv{Part{prefix + "self_attn.q_proj", query_width}, Part{prefix + "self_attn.k_proj", kv_width},
                         Part{prefix + "self_attn.v_proj", kv_width}};
    const std::array output{Part{prefix + "self_attn.o_proj", config.hidden}};
    const std::array gate_up{Part{prefix + "mlp.gate_proj", config.intermediate},
                             Part{prefix + "mlp.up_proj", config.intermediate}};
    const std::array down{Part{prefix + "mlp.down_proj", config.hidden}};
    // In the order of AdaptedLinear.
    packed_.push_back(pack(adapter, base, qkv, config.hidden));
    packed_.push_back(pack(adapter, base, output, query_width));
    packed_.push_back(pack(adapter, base, gate_up, config.hidden));
    packed_.push_back(pack(adapter, base, down, config.intermediate));
  }
  std::vector<const kernels::PackedLowRank*> factors;
  for (const auto& one : packed_) factors.push_back(one ? &*one : nullptr);
  set_ = kernels::LowRankSet(std::move(factors), base.device());
}

size_t Adapter::bytes_by_file(const std::filesystem::path& directory, kernels::DType precision) {
  std::error_code missing;
  const auto bytes = std::filesystem::file_size(directory / kAdapterWeightsFile, missing);
  return missing ? 0 : static_cast<size_t>(bytes) / 2 * kernels::size_of(precision);
}

size_t Adapter::bytes() const {
  size_t bytes = 0;
  for (const auto& one : packed_) bytes += one ? one->packed_bytes() : 0;
  return bytes;
}

}  // namespace scd
