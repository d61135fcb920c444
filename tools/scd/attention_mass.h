// How much of a model's attention the tokens of a text receive.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/token.h"
#include "common/codec/dense_matrix.h"
#include "common/model/model.h"
#include "tools/scd/cache_pages.h"

namespace scd {

// Whose attention counts.
struct AttentionQueries {
  PositionRange of;   // the queries at these positions
  int64_t chunk = 0;  // each for tokens of its own chunk only, `of` being cut into chunks of so many; 0: for all tokens
};

// [layers, tokens]: sum over the queries and all heads of the squared attention probability of a token. What a query
// gives to itself does not count: tokens are asked what later ones make of them.
DenseMatrix attention_mass(const Model& model, std::span<const TokenId> tokens, const AttentionQueries& queries);

// How many queries, heads aside, a token's sum is over; by token.
std::vector<int64_t> count_queries(int64_t tokens, const AttentionQueries& queries);

}  // namespace scd
