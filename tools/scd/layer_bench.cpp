#include "tools/scd/layer_bench.h"

#include <cmath>
#include <utility>

#include "common/kv/kv_cache.h"
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

int64_t pages_of(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

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
  for (const auto* linear : {&qkv_, &output_, &gate_up_, &down_})
    count += linear->in_features() * linear->out_features();
  return count;
}

double LayerBench::measure(const Rows& rows,
                           const std::function<double(const std::function<void()>&)>& seconds_of) const {
  const int64_t of_sequence = pages_of(rows.first_position + rows.of_sequence), all = rows.sequences * rows.of_sequence;
  const FilledMatrix pages(device_, 2 * rows.sequences * of_sequence * kPageTokens, kv_, precision_, 4);
  const kernels::PagedKv kv{.keys = pages->data,
                            .values = static_cast<std::byte*>(pages->data) +
                                      static_cast<size_t>(pages->rows / 2 * kv_) * kernels::size_of(precision_),
                            .kv_heads = shape_.kv_heads,
                            .page_tokens = kPageTokens,
                            .head_dim = shape_.head_dim,
                            .dtype = precision_,
                            .device = device_,
                            .pages = rows.sequences * of_sequence};
  std::vector<std::vector<int32_t>> tables(static_cast<size_t>(rows.sequences));
  std::vector<kernels::SequenceRows> sequences;
  int32_t next = 0;
  for (auto& table : tables) {
    for (int64_t page = 0; page < of_sequence; ++page) table.push_back(next++);
    sequences.push_back({table, std::ssize(sequences) * rows.of_sequence, rows.of_sequence, rows.first_position});
  }
  kernels::RaggedBatch batch(device_);
  batch.assign({}, sequences);

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
    kernels::rope_write_kv(kv, batch.sequences(), batch.positions(), rope_, *qkv);
    kernels::paged_attention({.queries = queries,
                              .output = *mixed,
                              .kv = kv,
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
