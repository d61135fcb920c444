// The consumer's side of a Patch layer: x_B from the codes of x_A, by ridge regression plus a small network trained on
// what the regression leaves (MSE, AdamW of Loshchilov and Hutter 2019, arXiv:1711.05101, early stop).
#pragma once

#include <cstdint>
#include <functional>

#include "common/codec/dense_matrix.h"
#include "common/codec/scd_maps.h"

namespace scd {

struct PredictorOptions {
  int64_t width = 256;  // of the network; 0: the regression alone
  int32_t max_epochs = 24;
  int32_t patience = 3;  // epochs without a better held-out loss
  int64_t batch = 256;
  float learning_rate = 1e-3f;
  float weight_decay = 0.01f;
  double ridge = 1e-4;
  uint64_t seed = 1;
  std::function<void(double)> progress = {};  // share of max_epochs done; may be empty
};

// Samples of one layer: codes as the wire carries them, and what the consumer's own attention input was.
struct PredictorSamples {
  const DenseMatrix& codes;           // [samples, rank]
  const DenseMatrix& targets;         // [samples, hidden]
  const DenseMatrix& held_out_codes;  // never fitted: decides when to stop
  const DenseMatrix& held_out_targets;
};

struct PredictorFit {
  ScdPredictor predictor;      // values exact in BF16
  double regression_loss = 0;  // E||x_B - x'_B||^2 / E||x_B||^2 held out, of the regression alone
  double loss = 0;             // the same with the network
  int32_t epochs = 0;          // of the network kept
};

// Same samples and seed, same predictor. A network that does not beat the regression is left out.
PredictorFit fit_predictor(const PredictorSamples& samples, const PredictorOptions& options);

// Codes of rows x_A [samples, hidden] as the wire carries them: [samples, rank], rounded to BF16.
DenseMatrix codes_of(const DenseMatrix& rows, const DenseMatrix& encoder);

// Rounds to the nearest BF16 in place.
void round_to_bf16(std::vector<float>& values);

}  // namespace scd
