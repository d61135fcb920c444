// The token of each row, a block a row: the cut that top_k and top_p make in the order of tokens, then a draw among
// those above it. Weights are whole numbers, so that their sums do not depend on an order.
#include <algorithm>
#include <cmath>
#include <cstdint>

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

__global__ void change_kernel(float* logits, int64_t stride, const LogitChange* changes, int count) {
  const int index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (index >= count) return;
  const LogitChange change = changes[index];
  float& logit = logits[change.row * stride + change.id];
  logit = changed(logit, change.penalty, change.bias);
}

// What is counted or weighed; the largest logit weighs kOne.
using Mass = unsigned long long;
constexpr float kOne = 0x1p44f;
static_assert(kMostSampled < int64_t{1} << 20, "so many may weigh kOne each");

struct Row {
  float temperature;
  int32_t top_k;
  float top_p;
  float reach;  // how far below the largest logit a token may lie
  int32_t by_rank;
  double uniform;
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
__device__ Mass block_sum_before(Mass value) {
  __shared__ Mass of_warp[kThreads / 32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Mass sum = value;
  for (unsigned offset = 1; offset < 32; offset *= 2) {
    const Mass lower = __shfl_up_sync(0xffffffffu, sum, offset);
    if (lane >= offset) sum += lower;
  }
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  Mass before = 0;
  for (unsigned w = 0; w < warp; ++w) before += of_warp[w];
  __syncthreads();
  return before + sum - value;
}

// Logits as whole numbers of the same order.
__device__ inline unsigned key_of(float logit) {
  const unsigned bits = __float_as_uint(ordered(logit) + 0.0f);  // both zeros are one
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// The last number of [low, high) for which `holds`, which it does for low and all up to some border.
template <class Number, class Holds>
__device__ Number last_for_which(Number low, Number high, Holds holds) {
  while (high - low > 1) {
    const Number middle = low + (high - low) / 2;
    (holds(middle) ? low : high) = middle;
  }
  return low;
}

// Tokens of larger logits, and those of the same up to an id.
struct Cut {
  unsigned key;
  int last_id;
  __device__ bool keeps(Candidate token) const {
    const unsigned own = key_of(token.logit);
    return own > key || (own == key && token.id <= last_id);
  }
};
constexpr int kAnyId = INT32_MAX;

constexpr int kMostListed = 2048;

struct Distances {
  float values[kLeadingSteps];
};

// One row of logits. Which tokens may lead it is looked up in a list, or in the whole row where they are many.
class Sampled {
 public:
  __device__ Sampled(const float* logits, int vocab, const Row& row, Candidate best)
      : logits_(logits), vocab_(vocab), row_(row), best_(best) {}

  __device__ Mass weight(float logit) const { return static_cast<Mass>(relative_weight(logit) * kOne); }

  __device__ Cut cut_by_rank(const Distances& distances, Candidate* list) {
    const float lowest = lowest_leading(distances);
    list_from(lowest, list);
    Cut cut{key_of(lowest), kAnyId};
    Mass total = total_;
    if (row_.top_k > 0) {
      cut = shortest_run(cut, static_cast<Mass>(row_.top_k), [](Candidate) { return Mass{1}; });
      total = mass([&](Candidate token) { return cut.keeps(token) ? weight(token.logit) : 0; });
    }
    if (row_.top_p < 1.0f) {
      const auto wanted = static_cast<Mass>(ceil(static_cast<double>(row_.top_p) * static_cast<double>(total)));
      cut = shortest_run(cut, wanted, [this](Candidate token) { return weight(token.logit); });
    }
    return cut;
  }

  // Ids in their order, a thread has neighbouring ones; one thread finds the token.
  __device__ void draw(Cut cut, int32_t* id) const {
    const float lowest = best_.logit - row_.reach;
    const auto weight_of = [&](int token) {
      const float logit = ordered(logits_[token]);
      return logit >= lowest && cut.keeps({logit, token}) ? weight(logit) : 0;
    };
    const int share = (vocab_ + kThreads - 1) / kThreads;
    const int first = min(static_cast<int>(threadIdx.x) * share, vocab_), end = min(first + share, vocab_);
    Mass own = 0;
    for (int token = first; token < end; ++token) own += weight_of(token);
    Mass sum = block_sum_before(own);
    const Mass total = block_total(own);
    const Mass threshold = min(static_cast<Mass>(row_.uniform * static_cast<double>(total)), total - 1);
    if (sum > threshold || sum + own <= threshold) return;
    for (int token = first; token < end; ++token) {
      sum += weight_of(token);
      if (sum <= threshold) continue;
      *id = token;
      return;
    }
  }

 private:
  __device__ float relative_weight(float logit) const {
    return expf((ordered(logit) - best_.logit) / row_.temperature);
  }

  // A logit below which no token can be kept; on the way, what all tokens weigh.
  __device__ float lowest_leading(const Distances& distances) {
    float leading[kLeadingSteps] = {};
    Mass all = 0;
    for (int id = threadIdx.x; id < vocab_; id += kThreads) {
      const float logit = ordered(logits_[id]);
      const float relative = relative_weight(logit);
      all += static_cast<Mass>(relative * kOne);
#pragma unroll
      for (int step = 0; step < kLeadingSteps; ++step) {
        const bool leads = logit >= best_.logit - distances.values[step];
        leading[step] += leads ? (row_.top_k > 0 ? 1.0f : relative) : 0.0f;
      }
    }
    total_ = block_total(all);
    const double wanted = row_.top_k > 0 ? row_.top_k : wanted_weight(static_cast<double>(total_) / kOne, row_.top_p);
    float lowest = -INFINITY;
#pragma unroll
    for (int step = kLeadingSteps - 1; step >= 0; --step) {
      if (block_total(static_cast<double>(leading[step])) >= wanted) lowest = best_.logit - distances.values[step];
    }
    return lowest;
  }

  __device__ void list_from(float lowest, Candidate* list) {
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    for (int id = threadIdx.x; id < vocab_; id += kThreads) {
      if (!(logits_[id] >= lowest)) continue;
      const int place = atomicAdd(&count, 1);
      if (place < kMostListed) list[place] = {logits_[id], id};
    }
    __syncthreads();
    list_ = count <= kMostListed ? list : nullptr;
    listed_ = list_ != nullptr ? count : vocab_;
  }

  template <class Of>
  __device__ Mass mass(Of of) const {
    Mass own = 0;
    for (int i = threadIdx.x; i < listed_; i += kThreads) {
      own += of(list_ != nullptr ? list_[i] : Candidate{logits_[i], i});
    }
    return block_total(own);
  }

  // The first tokens in order, within a cut, whose `of` reaches what is wanted: all of them if that is not reached.
  template <class Of>
  __device__ Cut shortest_run(Cut within, Mass wanted, Of of) const {
    const auto from = [&](unsigned key) {
      return mass([&](Candidate token) { return key_of(token.logit) >= key && within.keeps(token) ? of(token) : 0; });
    };
    const unsigned key =
        last_for_which(within.key, key_of(best_.logit) + 1, [&](unsigned middle) { return from(middle) >= wanted; });
    if (from(key) <= wanted) return {key, key == within.key ? within.last_id : kAnyId};
    const Mass missing = wanted - from(key + 1);
    const auto before = [&](int id) {
      return mass([&](Candidate token) { return key_of(token.logit) == key && token.id < id ? of(token) : 0; });
    };
    return {key, last_for_which(0, vocab_, [&](int id) { return before(id) < missing; })};
  }

  const float* logits_;
  int vocab_;
  Row row_;
  Candidate best_;
  Mass total_ = 0;
  const Candidate* list_ = nullptr;
  int listed_ = 0;
};

__global__ void __launch_bounds__(kThreads)
    sample_kernel(const float* logits, int64_t stride, int vocab, const Row* rows,
                  __grid_constant__ const Distances distances, int32_t* ids) {
  __shared__ Candidate list[kMostListed];
  __shared__ Row row;  // of the host's memory: read once, by one warp
  if (threadIdx.x < sizeof(Row) / sizeof(int)) {
    reinterpret_cast<int*>(&row)[threadIdx.x] = reinterpret_cast<const int*>(rows + blockIdx.x)[threadIdx.x];
  }
  const float* own = logits + blockIdx.x * stride;
  const Candidate best = block_best(own, vocab);  // behind a barrier
  if (row.temperature == 0.0f || isinf(best.logit)) {
    if (threadIdx.x == 0) ids[blockIdx.x] = best.id;
    return;
  }
  Sampled sampled(own, vocab, row, best);
  const Cut cut = row.by_rank != 0 ? sampled.cut_by_rank(distances, list) : Cut{0, kAnyId};
  sampled.draw(cut, ids + blockIdx.x);
}

}  // namespace

// In pieces, so that what they take does not grow.
void change_logits(Matrix logits, std::span<const LogitChange> changes) {
  static_assert(sizeof(LogitChange) == 4 * sizeof(int32_t));
  constexpr int kThreadsOfBlock = 128;
  auto* there =
      reinterpret_cast<LogitChange*>(device_scratch(Slot::kLogitChanges, kChangesAtOnce * sizeof(LogitChange)));
  for (size_t first = 0; first < changes.size(); first += kChangesAtOnce) {
    const auto piece = changes.subspan(first, std::min(kChangesAtOnce, changes.size() - first));
    upload({reinterpret_cast<const int32_t*>(piece.data()), 4 * piece.size()}, reinterpret_cast<std::byte*>(there));
    const auto count = static_cast<int>(piece.size());
    change_kernel<<<(count + kThreadsOfBlock - 1) / kThreadsOfBlock, kThreadsOfBlock, 0, stream()>>>(
        static_cast<float*>(logits.data), logits.row_stride, there, count);
    check_launch("change_logits");
  }
}

void sample_rows(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms,
                 HostStaging& options_memory, int32_t* ids) {
  static_assert(sizeof(Row) % sizeof(float) == 0);
  auto* const rows = static_cast<Row*>(options_memory.matrix(logits.rows, sizeof(Row) / sizeof(float)).data);
  Distances distances;
  for (int step = 0; step < kLeadingSteps; ++step) distances.values[step] = leading_distance(step);
  for (size_t r = 0; r < options.size(); ++r) {
    rows[r] = {.temperature = options[r].temperature,
               .top_k = options[r].top_k,
               .top_p = options[r].top_p,
               .reach = reach_of(options[r]),
               .by_rank = filters_by_rank(options[r]) ? 1 : 0,
               .uniform = uniforms[r]};
  }
  sample_kernel<<<static_cast<unsigned>(options.size()), kThreads, 0, stream()>>>(
      static_cast<const float*>(logits.data), logits.row_stride, static_cast<int>(logits.columns), rows, distances,
      ids);
  check_launch("sample");
}

}  // namespace scd::kernels::cuda
