#include "tools/scd/layer_bench.h"

#include <cmath>
#include <utility>

#include "kernels/attention.h"
#include "kernels/paged_kv.h"
#include "kernels/rms_norm.h"

namespace scd {
namespace {

using kernels::DType;

kernels::PackedLinear made_up(int64_t in, int64_t out, DType precision, kernels::Device device) {
  const FilledMatrix weight(device, out, in, precision, 9, 1.0f / std::sqrt(static_cast<float>(in)));
  return {*weight, {}, precision, device};
}

}  // namespace

LayerBench::LayerBench(const ModelShape& shape, kernels::Device device, DType precision, kernels::RopeTable rope)
    : shape_(shape),
      device_(device),
      precision_(precision),
      rope_(std::move(rope)),
      query_(int64_t{shape.query_heads} * shape.head_dim),
      kv_(int64_t{shape.kv_heads} * shape.head_dim),
      norm_(std::vector<float>(static_cast<size_t>(shape.hidden), 1.0f), device),
      qkv_(made_up(shape.hidden, query_ + 2 * kv_, precision, device)),
      output_(made_up(query_, shape.hidden, precision, device)),
      gate_up_(made_up(shape.hidden, 2 * int64_t{shape.intermediate}, precision, device)),
      down_(made_up(shape.intermediate, shape.hidden, precision, device)) {}

int64_t LayerBench::weights() const {
  int64_t count = 0;
  for (const auto* linear : {&qkv_, &output_, &gate_up_, &down_}) {
    count += linear->in_features() * linear->out_features();
  }
  return count;
}

double LayerBench::measure(const RowsOfSequences& rows,
                           const std::function<double(const std::function<void()>&)>& seconds_of) const {
  const PagedRows paged(shape_, device_, precision_, rows);
  const kernels::RaggedBatch& batch = paged.batch();
  const int64_t all = rows.all();
  const bool on_gpu = device_ == kernels::Device::kGpu;
  const FilledMatrix residual(device_, all, shape_.hidden, DType::kF32, 5);
  const FilledMatrix normed(device_, all, shape_.hidden, precision_), qkv(device_, all, query_ + 2 * kv_, DType::kF32);
  const FilledMatrix mixed(device_, all, query_, precision_), activation(device_, all, shape_.intermediate, precision_);
  const FilledMatrix gate_up(device_, all, 2 * int64_t{shape_.intermediate}, on_gpu ? precision_ : DType::kF32);
  kernels::ConstMatrix queries = *qkv;
  queries.columns = query_;
  // As ForwardState::run_layer().
  const auto pass = [&] {
    kernels::rms_norm(*residual, norm_, 1e-5f, *normed);
    qkv_.forward(*normed, *qkv);
    kernels::rope_write_kv(paged.kv(), batch.sequences(), batch.positions(), rope_, *qkv);
    kernels::paged_attention({.queries = queries,
                              .output = *mixed,
                              .kv = paged.kv(),
                              .sequences = batch.sequences(),
                              .query_heads = shape_.query_heads,
                              .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))});
    output_.forward(*mixed, *residual, /*accumulate=*/true);
    kernels::rms_norm(*residual, norm_, 1e-5f, *normed);
    gate_up_.forward(*normed, *gate_up);
    kernels::silu_mul(*gate_up, *activation);
    down_.forward(*activation, *residual, /*accumulate=*/true);
  };
  if (!on_gpu || rows.of_sequence > 1) return seconds_of(pass);
  pass();  // before it can be recorded
  kernels::RecordedWork recorded;
  recorded.record(pass);
  return seconds_of([&] { recorded.replay(); });
}

}  // namespace scd
