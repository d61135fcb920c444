// Runs a tiny checkpoint and gives its logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "common/model/forward.h"
#include "common/model/model.h"

namespace scd::testing {

inline std::vector<TokenId> some_ids(int64_t count) {
  std::vector<TokenId> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>((i * 37 + 11) % 320);
  return ids;
}

// A cache with one sequence that has room for `tokens`.
struct OneSequence {
  OneSequence(const Model& model, int64_t tokens)
      : cache(model.config().kv_shape(model.precision()), static_cast<int32_t>(tokens / kPageTokens + 1)),
        pages(cache.pool().make_table()) {
    std::move(pages.reserve(tokens)).value_or_throw();
  }
  KvCache cache;
  PageTable pages;
};

// Runs what is left of a pass; logits of every row, [rows, vocab].
inline std::vector<float> finish(ForwardPass& pass, const Model& model) {
  while (pass.next_layer() < model.config().layers) pass.run_layer();
  std::vector<int64_t> rows(static_cast<size_t>(pass.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  const auto logits = pass.logits(rows);
  const auto* begin = logits.row<float>(0);
  return {begin, begin + logits.rows * logits.columns};
}

// Logits of every id, [ids, vocab].
inline std::vector<float> logits_of(const Model& model, std::span<const TokenId> ids) {
  OneSequence sequence(model, static_cast<int64_t>(ids.size()));
  const SequenceChunk chunk{&sequence.pages, 0, ids};
  ForwardPass pass(model, sequence.cache, std::span(&chunk, 1));
  return finish(pass, model);
}

inline float largest_difference(std::span<const float> a, std::span<const float> b) {
  float largest = a.size() == b.size() ? 0.0f : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

}  // namespace scd::testing
