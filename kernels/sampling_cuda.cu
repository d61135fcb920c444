// The token of each row, or the few among which the host chooses: a block a row.
#include <cmath>
#include <vector>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/device.h"
#include "kernels/sampling_limits.h"

namespace scd::kernels::cuda {
namespace {

constexpr int kThreads = 1024;

// Larger logits first, smaller ids among equals.
__device__ Candidate better(Candidate a, Candidate b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id) ? a : b;
}

__device__ Candidate warp_best(Candidate best) {
  for (int offset = 16; offset > 0; offset /= 2) {
    best =
        better(best, {__shfl_xor_sync(0xffffffffu, best.logit, offset), __shfl_xor_sync(0xffffffffu, best.id, offset)});
  }
  return best;
}

__device__ inline float ordered(float logit) { return isnan(logit) ? -INFINITY : logit; }

// Known to every thread.
__device__ Candidate block_best(const float* row, int vocab) {
  __shared__ Candidate of_warp[kThreads / 32];
  Candidate best{-INFINITY, 0};
  for (int id = threadIdx.x; id < vocab; id += kThreads) best = better(best, {ordered(row[id]), id});
  best = warp_best(best);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = best;
  __syncthreads();
  best = warp_best(of_warp[threadIdx.x % 32]);
  __syncthreads();
  return best;
}

__global__ void argmax_kernel(const float* logits, int64_t stride, int vocab, int32_t* ids) {
  const Candidate best = block_best(logits + blockIdx.x * stride, vocab);
  if (threadIdx.x == 0) ids[blockIdx.x] = best.id;
}

// tokens [count, 2]: row, id.
__global__ void forbid_kernel(float* logits, int64_t stride, const int32_t* tokens, int count) {
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (index < count) logits[tokens[2 * index] * stride + tokens[2 * index + 1]] = -INFINITY;
}

constexpr int kMostCandidates = 2048;

struct Row {
  float temperature;
  int32_t top_k;
  float top_p;
  float reach;  // of tokens below the largest logit, in units of the temperature
  int32_t by_rank;
  double uniform;
};

struct Found {
  int32_t id;
  float largest;
  double total;
  int32_t count;  // of candidates; more than kMostCandidates: not all are there
};

// Sums over the block, known to every thread; always in the same order.
template <class T>
__device__ T block_total(T value) {
  __shared__ T partial[kThreads / 32];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = partial[threadIdx.x % 32];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();
  return value;
}

// Of the threads before this one.
__device__ double block_sum_before(double value) {
  __shared__ double of_warp[kThreads / 32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  double sum = value;
  for (unsigned offset = 1; offset < 32; offset *= 2) {
    const double lower = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += lower;
  }
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  double before = 0.0;
  for (unsigned w = 0; w < warp; ++w) before += of_warp[w];
  __syncthreads();
  return before + sum - value;
}

// Ids in their order; a thread has neighbouring ones.
__device__ void draw_by_id(const float* logits, int vocab, const Row& row, Candidate best, Found* found) {
  __shared__ int chosen, last_possible;
  const float lowest = best.logit - row.temperature * row.reach;
  const double inverse = 1.0 / row.temperature;
  const auto weight = [&](int id) {
    const float logit = ordered(logits[id]);
    return logit >= lowest ? exp((static_cast<double>(logit) - best.logit) * inverse) : 0.0;
  };
  const int share = (vocab + kThreads - 1) / kThreads;
  const int first = min(static_cast<int>(threadIdx.x) * share, vocab), end = min(first + share, vocab);
  double own = 0.0;
  int last = -1;
  for (int id = first; id < end; ++id) {
    const double w = weight(id);
    own += w;
    if (w > 0.0) last = id;
  }
  if (threadIdx.x == 0) chosen = vocab, last_possible = best.id;
  const double before = block_sum_before(own);  // and a wait
  const double threshold = row.uniform * block_total(own);
  if (last >= 0) atomicMax(&last_possible, last);
  if (before <= threshold && before + own > threshold) {
    double sum = before;
    for (int id = first; id < end; ++id) {
      sum += weight(id);
      if (sum <= threshold) continue;
      atomicMin(&chosen, id);
      break;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) *found = {chosen < vocab ? chosen : last_possible, best.logit, 0.0, 0};
}

struct Distances {
  float values[kLeadingSteps];
};

__device__ void collect_leading(const float* logits, int vocab, const Row& row, Candidate best,
                                const Distances& distances, Candidate* candidates, Found* found) {
  __shared__ int count;
  const auto factor = 1.0f / row.temperature;
  int32_t counts[kLeadingSteps] = {};
  float weights[kLeadingSteps] = {};
  float all = 0.0f;
  for (int id = threadIdx.x; id < vocab; id += kThreads) {
    const float logit = ordered(logits[id]);
    const float weight = expf((logit - best.logit) * factor);
    all += weight;
#pragma unroll
    for (int step = 0; step < kLeadingSteps; ++step) {
      const bool leads = logit >= best.logit - distances.values[step];
      counts[step] += leads ? 1 : 0;
      weights[step] += leads ? weight : 0.0f;
    }
  }
  const double total = block_total(static_cast<double>(all));
  const double wanted = min(total, total * row.top_p * (1.0 + 1e-5));
  float lowest = -INFINITY;
#pragma unroll
  for (int step = kLeadingSteps - 1; step >= 0; --step) {
    const bool enough = row.top_k > 0 ? block_total(counts[step]) >= row.top_k
                                      : block_total(static_cast<double>(weights[step])) >= wanted;
    if (enough) lowest = best.logit - distances.values[step];
  }
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  for (int id = threadIdx.x; id < vocab; id += kThreads) {
    const float logit = logits[id];
    if (!(logit >= lowest)) continue;
    const int place = atomicAdd(&count, 1);
    if (place < kMostCandidates) candidates[place] = {logit, id};
  }
  __syncthreads();
  if (threadIdx.x == 0) *found = {-1, best.logit, total, count};
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(const float* logits, int64_t stride, int vocab, const Row* rows,
                  __grid_constant__ const Distances distances, Candidate* candidates, Found* found) {
  const float* own = logits + blockIdx.x * stride;
  const Row row = rows[blockIdx.x];
  Found* const result = found + blockIdx.x;
  const Candidate best = block_best(own, vocab);
  if (row.temperature == 0.0f || isinf(best.logit)) {
    if (threadIdx.x == 0) *result = {best.id, best.logit, 0.0, 0};
  } else if (row.by_rank != 0) {
    collect_leading(own, vocab, row, best, distances, candidates + int64_t{blockIdx.x} * kMostCandidates, result);
  } else {
    draw_by_id(own, vocab, row, best, result);
  }
}

// What leading_tokens() gives back, kept by its thread: page-locked, written by the GPU.
struct Leading {
  HostStaging rows, found, candidates;
  std::vector<LeadingTokens> tokens;
};

template <class T>
T* staged(HostStaging& staging, size_t count) {
  return static_cast<T*>(staging.matrix(1, static_cast<int64_t>(count * sizeof(T) / sizeof(float))).data);
}

}  // namespace

void forbid(Matrix logits, std::span<const RowToken> tokens) {
  static_assert(sizeof(RowToken) == 2 * sizeof(int32_t));
  const auto count = static_cast<int>(tokens.size());
  const int32_t* there = on_device(Indices({reinterpret_cast<const int32_t*>(tokens.data()), 2 * tokens.size()}));
  constexpr int kTokens = 128;
  forbid_kernel<<<(count + kTokens - 1) / kTokens, kTokens, 0, stream()>>>(static_cast<float*>(logits.data),
                                                                           logits.row_stride, there, count);
  check_launch("forbid");
}

void argmax(ConstMatrix logits, std::span<int32_t> ids) {
  auto* there = reinterpret_cast<int32_t*>(device_scratch(Slot::kArgmax, ids.size_bytes()));
  argmax_kernel<<<static_cast<unsigned>(logits.rows), kThreads, 0, stream()>>>(
      static_cast<const float*>(logits.data), logits.row_stride, static_cast<int>(logits.columns), there);
  check_launch("argmax");
  check(cudaMemcpyAsync(ids.data(), there, ids.size_bytes(), cudaMemcpyDeviceToHost, stream()), "argmax");
  synchronize();
}

std::span<const LeadingTokens> leading_tokens(ConstMatrix logits, std::span<const SamplingOptions> options,
                                              std::span<const double> uniforms) {
  thread_local Leading memory;
  const size_t count = options.size();
  Row* const rows = staged<Row>(memory.rows, count);
  Found* const found = staged<Found>(memory.found, count);
  Candidate* const candidates = staged<Candidate>(memory.candidates, count * kMostCandidates);
  Distances distances;
  for (int step = 0; step < kLeadingSteps; ++step) distances.values[step] = leading_distance(step);
  for (size_t r = 0; r < count; ++r) {
    rows[r] = {.temperature = options[r].temperature,
               .top_k = options[r].top_k,
               .top_p = options[r].top_p,
               .reach = reach_of(options[r].min_p),
               .by_rank = filters_by_rank(options[r]) ? 1 : 0,
               .uniform = uniforms[r]};
  }
  sample_kernel<<<static_cast<unsigned>(count), kThreads, 0, stream()>>>(
      static_cast<const float*>(logits.data), logits.row_stride, static_cast<int>(logits.columns), rows, distances,
      candidates, found);
  check_launch("sample");
  synchronize();
  memory.tokens.clear();
  for (size_t r = 0; r < count; ++r) {
    const bool all = found[r].count <= kMostCandidates;
    memory.tokens.push_back({found[r].id,
                             found[r].largest,
                             found[r].total,
                             {candidates + r * kMostCandidates, all ? static_cast<size_t>(found[r].count) : 0}});
  }
  return memory.tokens;
}

}  // namespace scd::kernels::cuda
