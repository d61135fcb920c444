#include "tools/scd/attention_mass.h"

#include <algorithm>
#include <cmath>

#include "common/model/forward.h"
#include "kernels/linear.h"

namespace scd {
namespace {

// Of the tokens that a query counts for.
int64_t first_token(const AttentionQueries& queries, int64_t query) {
  if (queries.chunk == 0) return 0;
  return queries.of.first + (query - queries.of.first) / queries.chunk * queries.chunk;
}

void softmax(std::span<float> scores, float scale) {
  const float largest = *std::ranges::max_element(scores);
  float sum = 0;
  for (float& score : scores) sum += score = std::exp((score - largest) * scale);
  for (float& score : scores) score /= sum;
}

// Of one layer: queries [tokens, query_heads * head_dim], keys [tokens, kv_width], both after RoPE. Adds to mass.
void add_layer(const ModelConfig& config, kernels::ConstMatrix all, const DenseMatrix& keys,
               const AttentionQueries& queries, std::span<float> mass) {
  const int64_t d = config.head_dim, group = config.query_heads / config.kv_heads;
  DenseMatrix scores(queries.of.count, keys.rows);
  for (int64_t head = 0; head < config.query_heads; ++head) {
    const kernels::ConstMatrix q{all.row<float>(queries.of.first) + head * d, queries.of.count, d, all.row_stride};
    const kernels::ConstMatrix k{keys.values.data() + head / group * d, keys.rows, d, keys.columns};
    kernels::gemm_f32({.a = q, .b = k, .c = scores.view(), .transpose_b = true});
    for (int64_t row = 0; row < scores.rows; ++row) {
      const int64_t query = queries.of.first + row;
      const std::span seen(scores.view().row<float>(row), static_cast<size_t>(query + 1));
      softmax(seen, 1.0f / std::sqrt(static_cast<float>(d)));
      for (auto token = static_cast<size_t>(first_token(queries, query)); token + 1 < seen.size(); ++token) {
        mass[token] += seen[token] * seen[token];
      }
    }
  }
}

}  // namespace

DenseMatrix attention_mass(const Model& model, std::span<const TokenId> tokens, const AttentionQueries& queries) {
  const auto count = static_cast<int64_t>(tokens.size());
  SequenceCache cache(model.config().kv_shape(model.precision()), count);
  const SequenceChunk chunk{&cache.pages, 0, tokens};
  ForwardPass pass(model, cache.cache, std::span(&chunk, 1));
  DenseMatrix mass(model.config().layers, count);
  for (int32_t layer = 0; layer < model.config().layers; ++layer) {
    pass.run_layer();
    const KeysValues rows = read_rows(cache.cache, cache.pages, layer, {0, count});
    add_layer(model.config(), pass.queries(), rows.keys, queries,
              std::span(mass.view().row<float>(layer), tokens.size()));
  }
  return mass;
}

std::vector<int64_t> count_queries(int64_t tokens, const AttentionQueries& queries) {
  std::vector<int64_t> counts(static_cast<size_t>(tokens));
  for (int64_t query = queries.of.first; query < queries.of.first + queries.of.count; ++query) {
    for (int64_t token = first_token(queries, query); token < query; ++token) ++counts[static_cast<size_t>(token)];
  }
  return counts;
}

}  // namespace scd
