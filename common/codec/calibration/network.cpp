#include "common/codec/calibration/network.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "common/codec/calibration/adamw.h"
#include "kernels/linear.h"

namespace scd {
namespace {

std::vector<float> column_rms(const DenseMatrix& matrix) {
  std::vector<double> sums(static_cast<size_t>(matrix.columns));
  for (int64_t r = 0; r < matrix.rows; ++r) {
    for (int64_t c = 0; c < matrix.columns; ++c)
      sums[static_cast<size_t>(c)] += double{matrix.at(r, c)} * matrix.at(r, c);
  }
  std::vector<float> rms(sums.size());
  for (size_t c = 0; c < sums.size(); ++c) {
    rms[c] = static_cast<float>(std::max(std::sqrt(sums[c] / static_cast<double>(matrix.rows)), 1e-12));
  }
  return rms;
}

DenseMatrix scaled_columns(DenseMatrix matrix, const std::vector<float>& divisors) {
  for (int64_t r = 0; r < matrix.rows; ++r) {
    for (int64_t c = 0; c < matrix.columns; ++c) matrix.at(r, c) /= divisors[static_cast<size_t>(c)];
  }
  return matrix;
}

double mean_square(const DenseMatrix& matrix) {
  double sum = 0;
  for (const float value : matrix.values) sum += double{value} * value;
  return sum / static_cast<double>(std::max<size_t>(matrix.values.size(), 1));
}

float overall_rms(const DenseMatrix& matrix) {
  return static_cast<float>(std::max(std::sqrt(mean_square(matrix)), 1e-12));
}

struct Parameters {
  DenseMatrix input;
  DenseMatrix input_bias;
  DenseMatrix output;
  DenseMatrix output_bias;
};

// Forward and backward of one batch; owns the activations.
class Trainer {
 public:
  Trainer(int64_t rank, int64_t width, int64_t hidden, const NetworkOptions& options)
      : weights_{DenseMatrix(rank, width), DenseMatrix(1, width), DenseMatrix(width, hidden), DenseMatrix(1, hidden)},
        gradients_(weights_),
        input_step_(weights_.input.values.size(), options.weight_decay),
        input_bias_step_(weights_.input_bias.values.size(), 0.0f),
        output_step_(weights_.output.values.size(), options.weight_decay),
        output_bias_step_(weights_.output_bias.values.size(), 0.0f) {
    // The output starts at zero: the network begins as "no correction".
    std::mt19937_64 random(options.seed);
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(rank)));
    for (float& value : weights_.input.values) value = normal(random);
  }

  const Parameters& weights() const { return weights_; }

  // Mean squared error per value.
  double loss(const DenseMatrix& inputs, const DenseMatrix& targets) {
    forward(inputs);
    double sum = 0;
    for (size_t i = 0; i < prediction_.values.size(); ++i) {
      const double error = prediction_.values[i] - targets.values[i];
      sum += error * error;
    }
    return sum / static_cast<double>(std::max<size_t>(prediction_.values.size(), 1));
  }

  void step(const DenseMatrix& inputs, const DenseMatrix& targets, float learning_rate) {
    forward(inputs);
    backward(inputs, targets);
    input_step_.step(weights_.input.values, gradients_.input.values, learning_rate);
    input_bias_step_.step(weights_.input_bias.values, gradients_.input_bias.values, learning_rate);
    output_step_.step(weights_.output.values, gradients_.output.values, learning_rate);
    output_bias_step_.step(weights_.output_bias.values, gradients_.output_bias.values, learning_rate);
  }

 private:
  static void fill_rows(DenseMatrix& matrix, const DenseMatrix& row) {
    for (int64_t r = 0; r < matrix.rows; ++r) {
      std::copy(row.values.begin(), row.values.end(), matrix.view().row<float>(r));
    }
  }

  static void sum_rows(const DenseMatrix& matrix, DenseMatrix& row) {
    std::fill(row.values.begin(), row.values.end(), 0.0f);
    for (int64_t r = 0; r < matrix.rows; ++r) {
      for (int64_t c = 0; c < matrix.columns; ++c) row.values[static_cast<size_t>(c)] += matrix.at(r, c);
    }
  }

  void forward(const DenseMatrix& inputs) {
    before_ = DenseMatrix(inputs.rows, weights_.input.columns);
    fill_rows(before_, weights_.input_bias);
    kernels::gemm_f32({.a = inputs.view(), .b = weights_.input.view(), .c = before_.view(), .beta = 1.0f});
    sigmoid_ = before_;
    after_ = before_;
    for (size_t i = 0; i < before_.values.size(); ++i) {
      sigmoid_.values[i] = 1.0f / (1.0f + std::exp(-before_.values[i]));
      after_.values[i] = before_.values[i] * sigmoid_.values[i];
    }
    prediction_ = DenseMatrix(inputs.rows, weights_.output.columns);
    fill_rows(prediction_, weights_.output_bias);
    kernels::gemm_f32({.a = after_.view(), .b = weights_.output.view(), .c = prediction_.view(), .beta = 1.0f});
  }

  void backward(const DenseMatrix& inputs, const DenseMatrix& targets) {
    // d(mean over rows of the summed squared error) / d prediction.
    const float scale = 2.0f / static_cast<float>(inputs.rows);
    for (size_t i = 0; i < prediction_.values.size(); ++i) {
      prediction_.values[i] = scale * (prediction_.values[i] - targets.values[i]);
    }
    sum_rows(prediction_, gradients_.output_bias);
    kernels::gemm_f32(
        {.a = after_.view(), .b = prediction_.view(), .c = gradients_.output.view(), .transpose_a = true});
    kernels::gemm_f32({.a = prediction_.view(), .b = weights_.output.view(), .c = after_.view(), .transpose_b = true});
    for (size_t i = 0; i < after_.values.size(); ++i) {
      const float s = sigmoid_.values[i];
      after_.values[i] *= s * (1.0f + before_.values[i] * (1.0f - s));
    }
    sum_rows(after_, gradients_.input_bias);
    kernels::gemm_f32({.a = inputs.view(), .b = after_.view(), .c = gradients_.input.view(), .transpose_a = true});
  }

  Parameters weights_;
  Parameters gradients_;
  AdamW input_step_;
  AdamW input_bias_step_;
  AdamW output_step_;
  AdamW output_bias_step_;
  DenseMatrix before_;      // [batch, width] before the activation
  DenseMatrix sigmoid_;     // of it
  DenseMatrix after_;       // activation, then its gradient
  DenseMatrix prediction_;  // [batch, hidden], then its gradient
};

void gather(const DenseMatrix& source, std::span<const int64_t> rows, DenseMatrix& out) {
  out = DenseMatrix(static_cast<int64_t>(rows.size()), source.columns);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(source.view().row<float>(rows[i]), source.columns, out.view().row<float>(static_cast<int64_t>(i)));
  }
}

SmallNetwork unscaled(const Parameters& best, const std::vector<float>& input_scale, float target_scale) {
  SmallNetwork network{best.input, best.input_bias.values, best.output, best.output_bias.values};
  for (int64_t r = 0; r < network.input.rows; ++r) {
    for (int64_t c = 0; c < network.input.columns; ++c) network.input.at(r, c) /= input_scale[static_cast<size_t>(r)];
  }
  for (float& value : network.output.values) value *= target_scale;
  for (float& value : network.output_bias) value *= target_scale;
  return network;
}

void shuffle(std::vector<int64_t>& order, std::mt19937_64& random) {
  // std::shuffle's result depends on the library; this one does not.
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

}  // namespace

TrainedNetwork train_network(const NetworkSamples& samples, const NetworkOptions& options) {
  const std::vector<float> input_scale = column_rms(samples.inputs);
  const float target_scale = overall_rms(samples.targets);
  const std::vector<float> target_scales(static_cast<size_t>(samples.targets.columns), target_scale);
  const DenseMatrix inputs = scaled_columns(samples.inputs, input_scale);
  const DenseMatrix targets = scaled_columns(samples.targets, target_scales);
  const DenseMatrix held_out_inputs = scaled_columns(samples.held_out_inputs, input_scale);
  const DenseMatrix held_out_targets = scaled_columns(samples.held_out_targets, target_scales);

  Trainer trainer(inputs.columns, options.width, targets.columns, options);
  Parameters best = trainer.weights();
  double best_loss = trainer.loss(held_out_inputs, held_out_targets);
  int32_t best_epoch = 0;
  std::mt19937_64 random(options.seed + 1);
  std::vector<int64_t> order(static_cast<size_t>(inputs.rows));
  std::iota(order.begin(), order.end(), 0);
  const size_t batch = static_cast<size_t>(std::min(options.batch, inputs.rows));
  // The last, smaller batch of an epoch is left out: the shuffle gives its rows another turn.
  const size_t batches = order.size() / batch;
  const double total_steps = static_cast<double>(batches) * options.max_epochs;
  double steps = 0;
  DenseMatrix batch_inputs, batch_targets;
  for (int32_t epoch = 1; epoch <= options.max_epochs; ++epoch) {
    shuffle(order, random);
    for (size_t b = 0; b < batches; ++b) {
      const std::span<const int64_t> rows = std::span(order).subspan(b * batch, batch);
      gather(inputs, rows, batch_inputs);
      gather(targets, rows, batch_targets);
      const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * steps++ / total_steps));
      trainer.step(batch_inputs, batch_targets, options.learning_rate * static_cast<float>(0.02 + 0.98 * cosine));
    }
    const double loss = trainer.loss(held_out_inputs, held_out_targets);
    if (options.progress) options.progress(static_cast<double>(epoch) / options.max_epochs);
    if (loss < best_loss) {
      best_loss = loss;
      best = trainer.weights();
      best_epoch = epoch;
    } else if (epoch - best_epoch >= options.patience) {
      break;
    }
  }
  const double power = double{target_scale} * target_scale * static_cast<double>(targets.columns);
  return {unscaled(best, input_scale, target_scale), power * mean_square(held_out_targets), power * best_loss,
          best_epoch};
}

}  // namespace scd
