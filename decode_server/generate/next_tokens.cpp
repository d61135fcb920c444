#include "decode_server/generate/next_tokens.h"

#include <algorithm>
#include <cstddef>

#include "kernels/device.h"
#include "kernels/sampling.h"

namespace scd {
namespace {

kernels::ConstMatrix rows_of(kernels::ConstMatrix logits, size_t first, size_t count) {
  logits.data = logits.row<float>(static_cast<int64_t>(first));
  logits.rows = static_cast<int64_t>(count);
  return logits;
}

bool needs_logits(const Sampler* sampler) { return sampler != nullptr && !sampler->draw().has_value(); }

}  // namespace

std::span<const SampledToken> NextTokens::of(std::span<Sampler* const> samplers, const kernels::Matrix& logits) {
  // What may find no memory comes before any sampler goes on.
  const bool on_gpu = logits.device == kernels::Device::kGpu;
  tokens_.assign(samplers.size(), {});
  const auto first = static_cast<size_t>(std::ranges::find_if(samplers, needs_logits) - samplers.begin());
  const kernels::ConstMatrix here = on_gpu ? needed_on_host(samplers, logits) : logits;
  if (on_gpu) sample_on_gpu(samplers, logits);
  for (size_t i = 0; i < samplers.size(); ++i) {
    if (samplers[i] == nullptr) continue;
    if (on_gpu && !needs_logits(samplers[i])) {
      tokens_[i] = samplers[i]->drawn(ids_[i]);
    } else {
      const auto* row = here.row<float>(static_cast<int64_t>(on_gpu ? i - first : i));
      tokens_[i] = samplers[i]->next({row, static_cast<size_t>(here.columns)});
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

// From the first row of which somebody needs the logits to the last, in one copy.
kernels::ConstMatrix NextTokens::needed_on_host(std::span<Sampler* const> samplers, const kernels::Matrix& logits) {
  const auto first = std::ranges::find_if(samplers, needs_logits);
  if (first == samplers.end()) return {};
  const auto last = std::find_if(samplers.rbegin(), samplers.rend(), needs_logits).base();
  const kernels::ConstMatrix rows =
      rows_of(logits, static_cast<size_t>(first - samplers.begin()), static_cast<size_t>(last - first));
  on_host_.resize(static_cast<size_t>(rows.rows * rows.columns));
  const kernels::Matrix here = kernels::matrix(on_host_.data(), rows.rows, rows.columns);
  kernels::copy(rows, here);
  return here;
}

}  // namespace scd
