// One hidden layer with SiLU, trained on the residual of a regression.
#pragma once

#include <vector>

#include "common/codec/calibration/predictor_fit.h"
#include "common/codec/dense_matrix.h"

namespace scd {

struct NetworkSamples {
  const DenseMatrix& inputs;   // [samples, rank]
  const DenseMatrix& targets;  // [samples, hidden]
  const DenseMatrix& held_out_inputs;
  const DenseMatrix& held_out_targets;
};

// y = silu(x input + input_bias) output + output_bias, in the units of the samples.
struct TrainedNetwork {
  DenseMatrix input;
  std::vector<float> input_bias;
  DenseMatrix output;
  std::vector<float> output_bias;
  int32_t epochs = 0;  // after which the held-out loss was best
};

// Inputs are scaled to unit RMS per component and targets to unit RMS while training; the scales are folded back into
// the weights. Starts as the zero function. The weights with the best held-out loss are returned.
TrainedNetwork train_network(const NetworkSamples& samples, const PredictorOptions& options);

}  // namespace scd
