#include "common/codec/calibration/network.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

#include "common/codec/calibration/device_matrix.h"
#include "kernels/column_sums.h"
#include "kernels/elementwise.h"
#include "kernels/grow_buffer.h"
#include "kernels/linear.h"
#include "kernels/training.h"

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

// One parameter matrix with what its training keeps, on the device.
class Parameter {
 public:
  Parameter(const DenseMatrix& start, float weight_decay, kernels::Device device)
      : values_(start, device),
        gradient_(start.rows, start.columns, device),
        first_(DenseMatrix(start.rows, start.columns), device),
        second_(DenseMatrix(start.rows, start.columns), device),
        weight_decay_(weight_decay) {}

  const DeviceMatrix& values() const { return values_; }
  kernels::Matrix gradient() const { return gradient_.view(); }
  void step(float learning_rate, int64_t step) {
    kernels::adamw({values_.view(), gradient_.view(), first_.view(), second_.view()},
                   {learning_rate, weight_decay_, step});
  }

 private:
  DeviceMatrix values_, gradient_, first_, second_;
  float weight_decay_;
};

// The output starts at zero: the network begins as "no correction".
Parameters starting_parameters(int64_t inputs, int64_t width, int64_t outputs, uint64_t seed) {
  Parameters start{DenseMatrix(inputs, width), DenseMatrix(1, width), DenseMatrix(width, outputs),
                   DenseMatrix(1, outputs)};
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(inputs)));
  for (float& value : start.input.values) value = normal(random);
  return start;
}

// Forward and backward of one batch; owns the activations.
class Trainer {
 public:
  Trainer(const Parameters& start, const NetworkOptions& options)
      : input_(start.input, options.weight_decay, options.device),
        input_bias_(start.input_bias, 0.0f, options.device),
        output_(start.output, options.weight_decay, options.device),
        output_bias_(start.output_bias, 0.0f, options.device),
        device_(options.device) {}

  Parameters weights() const {
    return {input_.values().on_host(), input_bias_.values().on_host(), output_.values().on_host(),
            output_bias_.values().on_host()};
  }

  // Mean squared error per value.
  double loss(const DeviceMatrix& inputs, const DeviceMatrix& targets) {
    forward(inputs.view());
    kernels::scaled_difference(prediction_, targets.view(), 1.0f, prediction_);
    std::vector<double> sums(static_cast<size_t>(targets.columns())), squares(sums.size());
    kernels::column_sums(prediction_, sums, squares);
    const auto values = static_cast<double>(std::max<int64_t>(targets.rows() * targets.columns(), 1));
    return std::accumulate(squares.begin(), squares.end(), 0.0) / values;
  }

  void step(kernels::ConstMatrix inputs, kernels::ConstMatrix targets, float learning_rate) {
    forward(inputs);
    backward(inputs, targets);
    ++steps_;
    for (Parameter* parameter : {&input_, &input_bias_, &output_, &output_bias_}) {
      parameter->step(learning_rate, steps_);
    }
  }

 private:
  kernels::Matrix rows_in(kernels::GrowBuffer& memory, int64_t rows, int64_t columns) const {
    return memory.matrix(rows, columns, kernels::DType::kF32, device_);
  }

  void forward(kernels::ConstMatrix inputs) {
    const int64_t width = input_.values().columns();
    before_ = rows_in(before_memory_, inputs.rows, width);
    kernels::gemm_f32({.a = inputs, .b = input_.values().view(), .c = before_});
    kernels::add_bias(before_, input_bias_.values().row());
    after_ = rows_in(after_memory_, inputs.rows, width);
    slope_ = rows_in(slope_memory_, inputs.rows, width);
    kernels::silu_with_slope(before_, after_, slope_);
    prediction_ = rows_in(prediction_memory_, inputs.rows, output_.values().columns());
    kernels::gemm_f32({.a = after_, .b = output_.values().view(), .c = prediction_});
    kernels::add_bias(prediction_, output_bias_.values().row());
  }

  void backward(kernels::ConstMatrix inputs, kernels::ConstMatrix targets) {
    // d(mean over rows of the summed squared error) / d prediction.
    const float scale = 2.0f / static_cast<float>(inputs.rows);
    kernels::scaled_difference(prediction_, targets, scale, prediction_);
    kernels::sum_rows(prediction_, output_bias_.gradient());
    kernels::gemm_f32({.a = after_, .b = prediction_, .c = output_.gradient(), .transpose_a = true});
    kernels::gemm_f32({.a = prediction_, .b = output_.values().view(), .c = after_, .transpose_b = true});
    kernels::multiply(after_, slope_);
    kernels::sum_rows(after_, input_bias_.gradient());
    kernels::gemm_f32({.a = inputs, .b = after_, .c = input_.gradient(), .transpose_a = true});
  }

  Parameter input_, input_bias_, output_, output_bias_;
  kernels::Device device_;
  int64_t steps_ = 0;
  kernels::GrowBuffer before_memory_, after_memory_, slope_memory_, prediction_memory_;
  kernels::Matrix before_;      // [batch, width] before the activation
  kernels::Matrix after_;       // activation, then its gradient
  kernels::Matrix slope_;       // of the activation
  kernels::Matrix prediction_;  // [batch, outputs], then its gradient
};

SmallNetwork unscaled(const Parameters& best, const std::vector<float>& input_scale, float target_scale) {
  SmallNetwork network{best.input, best.input_bias.values, best.output, best.output_bias.values};
  for (int64_t r = 0; r < network.input.rows; ++r) {
    for (int64_t c = 0; c < network.input.columns; ++c) network.input.at(r, c) /= input_scale[static_cast<size_t>(r)];
  }
  for (float& value : network.output.values) value *= target_scale;
  for (float& value : network.output_bias) value *= target_scale;
  return network;
}

void shuffle(std::vector<int32_t>& order, std::mt19937_64& random) {
  // std::shuffle's result depends on the library; this one does not.
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

}  // namespace

TrainedNetwork train_network(const NetworkSamples& samples, const NetworkOptions& options) {
  const std::vector<float> input_scale = column_rms(samples.inputs);
  const float target_scale = overall_rms(samples.targets);
  const std::vector<float> target_scales(static_cast<size_t>(samples.targets.columns), target_scale);
  const auto scaled = [&](const DenseMatrix& rows, const std::vector<float>& scales) {
    return DeviceMatrix(scaled_columns(rows, scales), options.device);
  };
  const DeviceMatrix inputs = scaled(samples.inputs, input_scale), targets = scaled(samples.targets, target_scales);
  const DeviceMatrix held_out_inputs = scaled(samples.held_out_inputs, input_scale);
  const DeviceMatrix held_out_targets = scaled(samples.held_out_targets, target_scales);

  Parameters best = starting_parameters(inputs.columns(), options.width, targets.columns(), options.seed);
  Trainer trainer(best, options);
  double best_loss = trainer.loss(held_out_inputs, held_out_targets);
  int32_t best_epoch = 0;
  std::mt19937_64 random(options.seed + 1);
  std::vector<int32_t> order(static_cast<size_t>(inputs.rows()));
  std::iota(order.begin(), order.end(), 0);
  const int64_t batch = std::min(options.batch, inputs.rows());
  // The last, smaller batch of an epoch is left out: the shuffle gives its rows another turn.
  const int64_t batches = inputs.rows() / batch;
  const double total_steps = static_cast<double>(batches) * options.max_epochs;
  double steps = 0;
  const DeviceMatrix batch_inputs(batch, inputs.columns(), options.device);
  const DeviceMatrix batch_targets(batch, targets.columns(), options.device);
  for (int32_t epoch = 1; epoch <= options.max_epochs; ++epoch) {
    shuffle(order, random);
    for (int64_t b = 0; b < batches; ++b) {
      const std::span<const int32_t> rows =
          std::span(order).subspan(static_cast<size_t>(b * batch), static_cast<size_t>(batch));
      kernels::embedding(inputs.view(), rows, batch_inputs.view());
      kernels::embedding(targets.view(), rows, batch_targets.view());
      const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * steps++ / total_steps));
      trainer.step(batch_inputs.view(), batch_targets.view(),
                   options.learning_rate * static_cast<float>(0.02 + 0.98 * cosine));
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
  const double power = double{target_scale} * target_scale * static_cast<double>(samples.targets.columns);
  return {unscaled(best, input_scale, target_scale),
          power * mean_square(scaled_columns(samples.held_out_targets, target_scales)), power * best_loss, best_epoch};
}

}  // namespace scd
