// One hidden layer with SiLU, trained on the residual of a regression (MSE, AdamW of Loshchilov and Hutter 2019,
// arXiv:1711.05101, early stop).
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <functional>

#include "common/codec/calibration/algebra.h"
#include "common/codec/dense_matrix.h"
#include "common/codec/small_network.h"

namespace scd {

struct NetworkOptions {
  int64_t width = 256;  // 0: none
  int32_t max_epochs = 24;
  int32_t patience = 3;  // epochs without a better held-out loss
  int64_t batch = 256;
  float learning_rate = 1e-3f;
  float weight_decay = 0.01f;
  uint64_t seed = 1;
  kernels::Device device = kernels::Device::kCpu;  // that trains: on a GPU in TF32
  std::function<void(double)> progress = {};       // share of max_epochs done; may be empty
};

struct NetworkSamples {
  const DenseMatrix& inputs;           // [samples, inputs]
  const DenseMatrix& targets;          // [samples, outputs]: what the regression leaves
  const DenseMatrix& held_out_inputs;  // never fitted: decides when to stop
  const DenseMatrix& held_out_targets;
};

struct TrainedNetwork {
  SmallNetwork network;       // in the units of the samples
  double held_out_power = 0;  // of targets, mean over samples: of the metric's squared norm
  double held_out_loss = 0;   // of it, what the network leaves
  int32_t epochs = 0;         // after which the held-out loss was best
};

// Inputs are scaled to unit RMS per component and targets to unit RMS while training; the scales are folded back into
// the weights. Starts as the zero function. The weights with the best held-out loss are returned.
TrainedNetwork train_network(const NetworkSamples& samples, const NetworkOptions& options);

// The same where errors cost e^T metric e (0 x 0: e^T e), weights rounded to BF16. A network that does not lower the
// held-out loss is left out: empty. Directions of which the metric knows (nearly) nothing cost a thousandth of the
// mean.
TrainedNetwork fit_network(const NetworkSamples& samples, const Eigen::MatrixXd& metric, const NetworkOptions& options,
                           const Algebra& algebra = {});

}  // namespace scd
