#include "decode_server/generate/next_tokens.h"

#include <algorithm>
#include <cstddef>

#include "common/base/check.h"
#include "kernels/device.h"
#include "kernels/sampling.h"

namespace scd {
namespace {

bool needs_logits(const Sampler* sampler) { return sampler != nullptr && !sampler->draw().has_value(); }

}  // namespace

std::span<const SampledToken> NextTokens::of(std::span<Sampler* const> samplers, const kernels::Matrix& logits) {
  SCD_CHECK(queued_ == taken_, "the tokens of the step before are taken");
  const auto columns = static_cast<size_t>(logits.columns);
  if (logits.device == kernels::Device::kCpu) {
    tokens_.assign(samplers.size(), {});
    for (size_t i = 0; i < samplers.size(); ++i) {
      if (samplers[i] == nullptr) continue;
      tokens_[i] = samplers[i]->next({logits.row<float>(static_cast<int64_t>(i)), columns});
    }
    return tokens_;
  }
  // First, as a GPU may find no memory for it: no sampler has gone on then.
  fetch_needed(samplers, logits);
  tokens_.assign(samplers.size(), {});
  draws_.clear();
  for (const Sampler* sampler : samplers) draws_.push_back(sampler == nullptr ? std::nullopt : sampler->draw());
  queue(draws_, logits);
  const std::span<const TokenId> ids = take();
  const float* fetched = on_host_.data();
  for (size_t i = 0; i < samplers.size(); ++i) {
    if (samplers[i] == nullptr) continue;
    if (draws_[i]) {
      tokens_[i] = samplers[i]->drawn(ids[i]);
    } else {
      tokens_[i] = samplers[i]->next({fetched, columns});
      fetched += columns;
    }
  }
  return tokens_;
}

void NextTokens::warm_up(const kernels::Matrix& logits) {
  const kernels::LogitChange none;
  kernels::change_logits(logits, std::span(&none, 1));
  const std::vector<Sampler*> nobody(static_cast<size_t>(logits.rows), nullptr);
  for (size_t turn = 0; turn < queued_rows_.size(); ++turn) of(nobody, logits);
}

void NextTokens::queue(const Draws& draws, const kernels::Matrix& logits) {
  SCD_CHECK(queued_ - taken_ < queued_rows_.size(), "the tokens of the step before the last are taken");
  options_.assign(draws.size(), {});
  uniforms_.assign(draws.size(), 0.0);
  changes_.clear();
  for (size_t i = 0; i < draws.size(); ++i) {
    if (!draws[i]) continue;
    options_[i] = draws[i]->options;
    uniforms_[i] = draws[i]->uniform;
    for (kernels::LogitChange change : draws[i]->changes) {
      change.row = static_cast<int32_t>(i);
      changes_.push_back(change);
    }
  }
  kernels::change_logits(logits, changes_);
  queued_rows_[queued_ % queued_rows_.size()].queue(logits, options_, uniforms_);
  ++queued_;
}

std::span<const TokenId> NextTokens::take() {
  SCD_CHECK(taken_ < queued_, "a step was queued");
  return queued_rows_[taken_++ % queued_rows_.size()].ids();
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
