// Which tokens deserve more bits. An error in a token's keys or values reaches the queries behind it by their attention
// probabilities, so its weight a is their mean square, and reverse water-filling over tokens makes its step
// proportional to a^-1/2. Steps are the level's times powers of the square root of two, as the tables of the quantiser
// go: a token's class k, step 2^(k/2) times the level's, shifts the table of every component by k.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "common/codec/dense_matrix.h"
#include "common/codec/layer_plan.h"
#include "common/model/model.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/calibration_text.h"
#include "tools/scd/token_weight_fit.h"

namespace scd {

// Whose attention makes the weights.
enum class RateQueries : uint8_t {
  kScored,  // the consumer's own, of the tokens that it is judged on: no producer knows them, a bound
  kPrompt,  // the producer's, of the whole hand-over: known once all of it is prefilled
  kChunk,   // the producer's, of a token's own chunk: known when the chunk is coded
  kLearned  // as kScored, of calibration text: what a token's own codes tell of it (token_weight_fit.h)
};

inline constexpr int kMostTokenClass = 8;  // of classes, either way

// log2 of weights relative to their geometric mean.
std::vector<double> octaves_of(std::span<const double> weights);

// k = round(-exponent octaves), at most kMostTokenClass either way. exponent 1 is what theory asks for where weights
// are known; where they are guesses, less.
std::vector<int8_t> token_classes(std::span<const double> octaves, double exponent);

// The classes of one window after the other. The models must outlive it.
class TokenRates {
 public:
  struct Args {
    const Model& producer;
    const Model& consumer;
    LayerPlan plan;
    CacheExperimentOptions experiment;
    RateQueries queries = RateQueries::kScored;
  };
  explicit TokenRates(Args args) : args_(std::move(args)) {}

  // Classes of a unit's tokens by the mean over its layers (of a residual stream those of its span), each layer's
  // weights relative to their sum. Sinks have class 0 and do not count. Of kLearned classes are 0 until codes are seen.
  void set_window(const TokenWindow& window);
  std::span<const int8_t> classes(size_t unit, int64_t first_position, int64_t tokens) const;

  // Of kLearned: between begin_learning() and end_learning(), see() fits on codes of windows and classes are 0; behind
  // it see() makes the classes of those tokens. deviations: by unit. Of others nothing happens.
  void begin_learning(std::span<const std::vector<float>> deviations);
  void end_learning();
  void see(size_t unit, int64_t first_position, const DenseMatrix& codes);

 private:
  DenseMatrix weights(const TokenWindow& window, int64_t handover) const;
  // By unit, of positions from the sinks on.
  std::vector<std::vector<double>> octaves(const TokenWindow& window, int64_t handover) const;
  int64_t sinks(int64_t handover) const { return std::min(args_.experiment.sinks, handover); }

  Args args_;
  std::vector<std::vector<int8_t>> classes_;  // by unit and position
  bool learning_ = false;
  std::vector<TokenWeightFit> fits_;           // by unit
  std::vector<std::vector<double>> observed_;  // octaves() of the window
};

}  // namespace scd
