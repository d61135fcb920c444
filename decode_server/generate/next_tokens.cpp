#include "decode_server/generate/next_tokens.h"

#include <algorithm>
#include <cstddef>

#include "kernels/device.h"
#include "kernels/sampling.h"

namespace scd {
namespace {

bool needs_logits(const Sampler* sampler) { return sampler != nullptr && !sampler->draw().has_value(); }

}  // namespace

std::span<const SampledToken> NextTokens::of(std::span<Sampler* const> samplers, const kernels::Matrix& logits) {
  const bool on_gpu = logits.device == kernels::Device::kGpu;
  tokens_.assign(samplers.size(), {});
  if (on_gpu) {  // first, as a GPU may find no memory for it: no sampler has gone on then
    fetch_needed(samplers, logits);
    sample_on_gpu(samplers, logits);
  }
  const auto columns = static_cast<size_t>(logits.columns);
  const float* fetched = on_host_.data();
  for (size_t i = 0; i < samplers.size(); ++i) {
    if (samplers[i] == nullptr) continue;
    if (!on_gpu) {
      tokens_[i] = samplers[i]->next({logits.row<float>(static_cast<int64_t>(i)), columns});
    } else if (needs_logits(samplers[i])) {
      tokens_[i] = samplers[i]->next({fetched, columns});
      fetched += columns;
    } else {
      tokens_[i] = samplers[i]->drawn(ids_[i]);
    }
  }
  return tokens_;
}

void NextTokens::warm_up(const kernels::Matrix& logits) {
  const kernels::LogitChange none;
  kernels::change_logits(logits, std::span(&none, 1));
  const std::vector<Sampler*> nobody(static_cast<size_t>(logits.rows), nullptr);
  of(nobody, logits);
}

void NextTokens::sample_on_gpu(std::span<Sampler* const> samplers, const kernels::Matrix& logits) {
  options_.assign(samplers.size(), {});
  uniforms_.assign(samplers.size(), 0.0);
  ids_.resize(samplers.size());
  changes_.clear();
  for (size_t i = 0; i < samplers.size(); ++i) {
    const auto draw = samplers[i] == nullptr ? std::nullopt : samplers[i]->draw();
    if (!draw) continue;
    options_[i] = draw->options;
    uniforms_[i] = draw->uniform;
    for (kernels::LogitChange change : draw->changes) {
      change.row = static_cast<int32_t>(i);
      changes_.push_back(change);
    }
  }
  kernels::change_logits(logits, changes_);
  kernels::sample_rows(logits, options_, uniforms_, ids_);
}

// The rows whose logits are needed, one behind the other; neighbours in one copy.
void NextTokens::fetch_needed(std::span<Sampler* const> samplers, const kernels::Matrix& logits) {
  const auto needed = static_cast<size_t>(std::ranges::count_if(samplers, needs_logits));
  const auto columns = static_cast<size_t>(logits.columns);
  on_host_.resize(needed * columns);
  float* to = on_host_.data();
  for (size_t i = 0, count = 1; i < samplers.size(); i += count) {
    count = 1;
    if (!needs_logits(samplers[i])) continue;
    while (i + count < samplers.size() && needs_logits(samplers[i + count])) ++count;
    const auto rows = static_cast<int64_t>(count);
    kernels::copy(kernels::rows_of(kernels::ConstMatrix(logits), static_cast<int64_t>(i), rows),
                  kernels::matrix(to, rows, logits.columns));
    to += count * columns;
  }
}

}  // namespace scd
