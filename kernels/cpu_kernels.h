// What stands behind the ops on the CPU: the same contracts, arguments checked already.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/low_rank.h"
#include "kernels/paged_kv.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/sampling.h"
#include "kernels/training.h"
#include "kernels/unrotated_kv.h"

namespace scd::kernels::cpu {

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

void add_low_rank(ConstMatrix x, Matrix y, std::span<const LowRankGroup> groups);

void add_second_moment(ConstMatrix rows, double* triangle);
void column_sums(ConstMatrix m, std::span<double> sums, std::span<double> squares);

void silu_with_slope(ConstMatrix before, Matrix after, Matrix slope);
void multiply(Matrix m, ConstMatrix by);
void scaled_difference(ConstMatrix a, ConstMatrix b, float scale, Matrix out);
void sum_rows(ConstMatrix m, Matrix row);
void adamw(const AdamWState& state, const AdamWStep& step);

void write_kv(const PagedKv& kv, Sequences sequences, ConstMatrix keys, ConstMatrix values);
void read_kv(const PagedKv& kv, const SequenceRows& sequence, Matrix keys, Matrix values);
void read_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                       Matrix keys, Matrix values);
void write_unrotated_kv(std::span<const PagedKv> layers, const SequenceRows& sequence, const RopeTable& table,
                        ConstMatrix keys, ConstMatrix values);

int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform);
void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 std::span<int32_t> ids);
void change_logits(Matrix logits, std::span<const LogitChange> changes);
float log_probability(std::span<const float> logits, int32_t id);
std::vector<TokenProbability> top_log_probabilities(std::span<const float> logits, int32_t n);

void paged_attention(const AttentionArgs& args);

}  // namespace scd::kernels::cpu
