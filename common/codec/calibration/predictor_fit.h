// The consumer's side of a Patch layer: x_B from the codes of x_A, by ridge regression plus a small network trained on
// what the regression leaves (network.h).
#pragma once

#include <cstdint>

#include "common/codec/calibration/algebra.h"
#include "common/codec/calibration/network.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/scd_maps.h"

namespace scd {

struct PredictorOptions {
  NetworkOptions network = {};
  double ridge = 1e-4;
  Algebra algebra = {};
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

}  // namespace scd
