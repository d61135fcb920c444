// What stands behind the ops on CUDA: the same contracts, arguments checked already. Included where SCD_CUDA is set.
#pragma once

#include <chrono>
#include <memory>

#include "kernels/attention.h"
#include "kernels/dense_f64.h"
#include "kernels/device.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/low_rank.h"
#include "kernels/paged_kv.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/training.h"
#include "kernels/unrotated_kv.h"

namespace scd::kernels::cuda {

std::byte* allocate(size_t bytes);
void release(std::byte* memory) noexcept;
std::byte* allocate_pinned(size_t bytes);
void release_pinned(std::byte* memory) noexcept;
void clear(Matrix m);
void copy(ConstMatrix from, Matrix to);
void copy_bytes(std::span<const std::byte> from, std::byte* to);  // from the host; waits
void synchronize();
void finish_work() noexcept;
// Queues the copy and returns at once; the numbers may change again afterwards.
void upload(std::span<const int32_t> numbers, std::byte* to);
// Page-locked numbers that what is queued writes, as they are when it has.
void upload_queued(std::span<const int32_t> numbers, std::byte* to);

// Behind what the thread has queued; takes the event of before, where there is one, and gives it back.
void* event_behind_queue(void* event, bool timed);
std::chrono::duration<double> time_between(void* earlier, void* later);
void wait_for(void* event);
void release_event(void* event) noexcept;

struct Recording {
  void* graph = nullptr;
  uint32_t scratch_slots = 0;  // a bit for each whose memory it uses
};
Recording record(const std::function<void()>& work);
void replay(void* graph);
void release_graph(void* graph) noexcept;
// How often scratch memory of these slots has moved, of the calling thread.
uint64_t scratch_moves(uint32_t slots);

void rms_norm(ConstMatrix x, std::span<const float> weight, float epsilon, Matrix y);
void divide_by_rms(ConstMatrix x, ConstMatrix by, Matrix out);
void multiply_by_rms(ConstMatrix x, ConstMatrix by, Matrix out);
void rms_norm_heads(Matrix x, int64_t head_dim, std::span<const float> weight, float epsilon);

void rope(Matrix x, int64_t head_dim, Indices positions, const RopeTable& table, RopeDirection direction);

void embedding(ConstMatrix table, Indices ids, Matrix out);
void silu_mul(ConstMatrix gate_up, Matrix out);
void convert(ConstMatrix in, Matrix out);
void fill_rows(Matrix m, std::span<const float> values);
void add_bias(Matrix m, std::span<const float> bias);
void fill_normal(Matrix m, uint64_t seed, float deviation);

void rope_write_kv(const PagedKv& kv, Sequences sequences, const RopeTable& table, Matrix qkv);
void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values);
void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values);
void read_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                       Matrix keys, Matrix values);
void write_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                        ConstMatrix keys, ConstMatrix values);

void paged_attention(const AttentionArgs& args);

void add_low_rank(ConstMatrix x, Matrix y, LowRankRows& rows, int64_t index, int64_t most_rank);

void gemm_f32(const GemmArgs& args);

void add_second_moment(ConstMatrix rows, double* triangle);
void column_sums(ConstMatrix m, std::span<double> sums, std::span<double> squares);

void multiply_f64(const ProductF64& args);
bool eigen_f64(ColumnsF64 symmetric, double* values);
bool factorise_f64(ConstColumnsF64 symmetric, DeviceBuffer& factor);  // positive definite
void solve_f64(const DeviceBuffer& factor, ColumnsF64 right, CholeskyF64::Parts parts);

void silu_with_slope(ConstMatrix before, Matrix after, Matrix slope);
void multiply(Matrix m, ConstMatrix by);
void scaled_difference(ConstMatrix a, ConstMatrix b, float scale, Matrix out);
void sum_rows(ConstMatrix m, Matrix row);
void adamw(const AdamWState& state, const AdamWStep& step);

void change_logits(Matrix logits, std::span<const LogitChange> changes);
// Queued: options_memory is what the GPU reads the options in, ids is page-locked.
void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 HostStaging& options_memory, int32_t* ids);

// Row-major, [out_features, in_features] in its precision; in the buffers of which PackedLinear::buffer_sizes() tells.
class LinearWeights {
 public:
  LinearWeights(ConstMatrix weight, std::span<const float> bias, DType precision, const Placement& placement);
  LinearWeights(DeviceBuffer weight, int64_t out_features, int64_t in_features, DType precision)
      : in_features_(in_features), out_features_(out_features), precision_(precision), memory_(std::move(weight)) {}
  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  DType precision() const { return precision_; }
  size_t bytes() const { return memory_.size() + bias_.size() * sizeof(float) + narrow_bias_.size(); }
  void forward(ConstMatrix x, Matrix y, bool accumulate) const;

 private:
  ConstMatrix weight() const;
  int64_t in_features_;
  int64_t out_features_;
  DType precision_;
  DeviceBuffer memory_;
  DeviceVector bias_;
  DeviceBuffer narrow_bias_;  // the same in BF16, for outputs in BF16
};

}  // namespace scd::kernels::cuda
