#include "decode_server/generate/sampler.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/matrix.h"
#include "kernels/sampling.h"

namespace scd {
namespace {

uint64_t mix(uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ULL;
  bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBULL;
  return bits ^ (bits >> 31);
}

std::vector<TokenId> distinct(std::vector<TokenId> ids) {
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::vector<std::pair<TokenId, float>> summed(std::vector<std::pair<TokenId, float>> biases) {
  std::ranges::stable_sort(biases, {}, &std::pair<TokenId, float>::first);
  std::vector<std::pair<TokenId, float>> sums;
  for (const auto& [id, bias] : biases) {
    if (sums.empty() || sums.back().first != id) sums.emplace_back(id, 0.0f);
    sums.back().second += bias;
  }
  return sums;
}

}  // namespace

double uniform_of(uint64_t seed, uint64_t counter) {
  const uint64_t bits = mix(mix(seed) + (counter + 1) * 0x9E3779B97F4A7C15ULL);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

Sampler::Sampler(const SamplingRequest& request, std::span<const TokenId> prompt, std::vector<TokenId> end_ids)
    : request_(request), end_ids_(std::move(end_ids)), biases_(summed(request.logit_bias)) {
  std::vector<TokenId> seen;
  if (request_.repetition_penalty != 1.0f) seen = distinct({prompt.begin(), prompt.end()});
  std::vector<TokenId> ids = seen;
  for (const auto& [id, bias] : biases_) ids.push_back(id);
  if (awaits_min_tokens()) ids.insert(ids.end(), end_ids_.begin(), end_ids_.end());
  for (const TokenId id : distinct(std::move(ids))) {
    const bool was_seen = std::ranges::binary_search(seen, id);
    changes_.push_back({.id = id, .penalty = was_seen ? request_.repetition_penalty : 1.0f, .bias = bias_of(id)});
  }
}

SampledToken Sampler::next(std::span<const float> logits) {
  const std::span<const float> row = changes_.empty() ? logits : changed(logits);
  SampledToken token;
  token.id = kernels::sample(row, request_.options, uniform_of(request_.seed, static_cast<uint64_t>(sampled_)));
  if (request_.logprobs >= 0) {
    token.logprob = kernels::log_probability(logits, token.id);
    if (request_.logprobs > 0) token.most_probable = kernels::top_log_probabilities(logits, request_.logprobs);
  }
  remember(token.id);
  return token;
}

std::optional<Draw> Sampler::draw() const { return draw_of(sampled_); }

std::optional<Draw> Sampler::draw_after_next() const {
  const bool penalties =
      request_.repetition_penalty != 1.0f || request_.presence_penalty != 0.0f || request_.frequency_penalty != 0.0f;
  if (penalties || sampled_ + 1 == request_.min_tokens) return std::nullopt;
  return draw_of(sampled_ + 1);
}

std::optional<Draw> Sampler::draw_of(int64_t token) const {
  if (request_.logprobs >= 0) return std::nullopt;
  return Draw{.options = request_.options,
              .uniform = uniform_of(request_.seed, static_cast<uint64_t>(token)),
              .changes = changes_};
}

SampledToken Sampler::drawn(TokenId id) {
  remember(id);
  return {.id = id};
}

void Sampler::remember(TokenId id) {
  const bool awaited = awaits_min_tokens();
  ++sampled_;
  ++output_counts_[id];
  update_change(id);
  if (awaited && !awaits_min_tokens()) std::ranges::for_each(end_ids_, [this](TokenId end) { update_change(end); });
}

void Sampler::update_change(TokenId id) {
  auto place = std::ranges::lower_bound(changes_, id, {}, &kernels::LogitChange::id);
  if (place == changes_.end() || place->id != id) place = changes_.insert(place, {.id = id});
  if (output_counts_.contains(id)) place->penalty = request_.repetition_penalty;
  place->bias = bias_of(id);
  if (*place == kernels::LogitChange{.id = id}) changes_.erase(place);
}

float Sampler::bias_of(TokenId id) const {
  if (awaits_min_tokens() && std::ranges::binary_search(end_ids_, id)) return -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
  if (const auto count = output_counts_.find(id); count != output_counts_.end()) {
    sum -= request_.presence_penalty + request_.frequency_penalty * static_cast<float>(count->second);
  }
  const auto bias = std::ranges::lower_bound(biases_, id, {}, &std::pair<TokenId, float>::first);
  return bias != biases_.end() && bias->first == id ? sum + bias->second : sum;
}

std::span<const float> Sampler::changed(std::span<const float> logits) {
  scratch_.assign(logits.begin(), logits.end());
  kernels::change_logits(kernels::matrix(scratch_.data(), 1, std::ssize(scratch_)), changes_);
  return scratch_;
}

}  // namespace scd
