#include "common/model/workspace.h"

#include <algorithm>
#include <bit>

#include "kernels/linear.h"
#include "kernels/low_rank.h"
#include "kernels/sampling.h"

namespace scd {
namespace {

constexpr int64_t kF32 = 4, kBF16 = 2, kIndex = 4;  // bytes
constexpr int64_t kUnitsUnderWay = 4;               // of a codec
constexpr int64_t kAdapterRank = 96;                // of all parts of a layer, at most as a rule
constexpr int64_t kStreamBytes = 8;                 // a number of a unit in F32, its symbol, word and escape
constexpr int64_t kPartialRows = 2048;              // of attention, by which answers are split over multiprocessors

// Scratch of a thread is asked for with a quarter more than it needs.
int64_t ahead(int64_t rows) { return rows + (rows + 3) / 4; }

}  // namespace

std::vector<WorkspaceTerm> workspace_terms(const ModelConfig& config, kernels::DType precision,
                                           const WorkspaceLimits& limits) {
  const int64_t hidden = config.hidden, inner = config.intermediate, vocab = config.vocab, heads = config.query_heads;
  const int64_t query = heads * config.head_dim, kv = int64_t{config.kv_heads} * config.head_dim;
  const auto narrow = static_cast<int64_t>(kernels::size_of(precision));
  const int64_t rows = limits.passes * limits.step_tokens + limits.further_rows;
  const int64_t batch = limits.batch, coded = limits.coded_tokens;
  const auto table = static_cast<int64_t>(
      std::bit_ceil(static_cast<uint64_t>((config.max_positions + kPageTokens - 1) / kPageTokens)));
  std::vector<WorkspaceTerm> terms{
      // A pass (common/model/forward_state.h).
      {"residual stream", rows, hidden, kF32},
      {"attention input for codecs", rows, hidden, kF32},
      {"normalised input", rows, hidden, narrow},
      {"queries, keys and values", rows, query + 2 * kv, kF32},
      {"attention output", rows, query, narrow},
      {"gate and up", rows, 2 * inner, narrow},
      {"activation", rows, inner, narrow},
      {"logits", limits.passes * batch, vocab, kF32},
      {"ids and places", rows + 64, 8, kIndex},
      {"page tables", (limits.passes + 1) * std::max(limits.sequences, batch) + limits.further_passes, table + 8,
       kIndex},
      // Scratch of the kernels.
      {"input in the weights' precision", ahead(limits.step_tokens), hidden, narrow},
      {"indices", ahead(std::max<int64_t>(limits.step_tokens, 16384)), 1, kIndex},
      {"cuBLASLt", ahead(kernels::kProductWorkspace), 1, 1},
  };
  if (limits.adapters) {
    constexpr int64_t kMostRank = kernels::PackedLowRank::kMaxRank * kernels::PackedLowRank::kMaxParts;
    terms.push_back({"products with adapters", rows, kAdapterRank + 2, kF32});
    terms.push_back({"the same of recorded steps", batch, kMostRank + 2, kF32});
  }
  if (batch > 0) {
    const int64_t partials = batch * heads + kPartialRows * heads / config.kv_heads;
    terms.push_back({"parts of attention", ahead(partials), config.head_dim + 2, kF32});
    terms.push_back({"changes of logits", ahead(kernels::kChangesAtOnce), sizeof(kernels::LogitChange), 1});
    // A step of answers alone has its own memory, which recordings point to (common/model/decode_step.h).
    terms.push_back({"step of answers", batch, 2 * hidden + 2 * query + 2 * kv + 3 * inner + vocab, kF32});
  }
  if (coded > 0) {
    const int64_t unit = 2 * kv * limits.unit_layers;
    // Pieces are powers of two: up to twice as large.
    terms.push_back({"rows of units under way", kUnitsUnderWay * coded, unit, 2 * kBF16});
  }
  if (coded > 0 && limits.anchored) {
    const int64_t unit = std::max(hidden, 2 * kv * limits.unit_layers);
    terms.push_back({"unit that is coded", coded, unit, kF32});
    terms.push_back({"streams under way", ahead(kUnitsUnderWay * coded), unit, kStreamBytes});
    terms.push_back({"residual streams and their anchors", 2 * kResidualStreams * coded, hidden, kF32});
  }
  return terms;
}

size_t workspace_bytes(const ModelConfig& config, kernels::DType precision, const WorkspaceLimits& limits) {
  size_t bytes = 0;
  for (const WorkspaceTerm& term : workspace_terms(config, precision, limits)) bytes += term.bytes();
  return bytes;
}

}  // namespace scd
