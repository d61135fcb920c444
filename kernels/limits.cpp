#include "kernels/limits.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "kernels/linear.h"
#include "kernels/require.h"
#include "kernels/scratch.h"

namespace scd::kernels {
namespace {

using Clock = std::chrono::steady_clock;
using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

class ThreadCount {
 public:
  explicit ThreadCount(int threads) : previous_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~ThreadCount() { omp_set_num_threads(previous_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int previous_;
};

struct Gemm {
  dnnl::matmul primitive;
  std::unordered_map<int, dnnl::memory> arguments;
};

dnnl::memory filled_memory(const dnnl::memory::desc& desc, const dnnl::engine& engine) {
  dnnl::memory memory(desc, engine);
  auto* bytes = static_cast<uint8_t*>(memory.get_data_handle());
  // 0x3c01.. are small positive numbers as BF16 and as F32.
  const size_t size = desc.get_size();
  for (size_t i = 0; i < size; ++i) bytes[i] = (i & 1) != 0 ? 0x3c : static_cast<uint8_t>(i >> 1);
  return memory;
}

Gemm make_gemm(const GemmShape& shape, const dnnl::engine& engine) {
  const Type type = bf16_is_native() ? Type::bf16 : Type::f32;
  const dnnl::matmul::primitive_desc primitive({{{shape.m, shape.k}, type, Tag::ab},
                                                {{shape.k, shape.n}, type, Tag::any},
                                                {{shape.m, shape.n}, Type::f32, Tag::ab}},
                                               engine);
  return {dnnl::matmul(primitive),
          {{DNNL_ARG_SRC, filled_memory(primitive.src_desc(), engine)},
           {DNNL_ARG_WEIGHTS, filled_memory(primitive.weights_desc(), engine)},
           {DNNL_ARG_DST, filled_memory(primitive.dst_desc(), engine)}}};
}

uint64_t read_words(const uint64_t* words, size_t count) {
  constexpr size_t kChains = 32;
  uint64_t sums[kChains] = {};
  for (size_t i = 0; i + kChains <= count; i += kChains) {
    for (size_t chain = 0; chain < kChains; ++chain) sums[chain] += words[i + chain];
  }
  uint64_t sum = 0;
  for (uint64_t value : sums) sum += value;
  return sum;
}

}  // namespace

double measure_gemm_rate_onednn(std::span<const GemmShape> shapes, int threads, int repetitions) {
  require(!shapes.empty() && threads > 0 && repetitions > 0, "measure_gemm_rate_onednn: nothing to measure");
  const ThreadCount thread_count(threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  std::vector<Gemm> gemms;
  double flops = 0.0;
  for (const GemmShape& shape : shapes) {
    gemms.push_back(make_gemm(shape, engine));
    flops += shape.flops();
  }
  double best = 0.0;
  for (int repetition = 0; repetition <= repetitions; ++repetition) {
    const Clock::time_point start = Clock::now();
    for (Gemm& gemm : gemms) gemm.primitive.execute(stream, gemm.arguments);
    stream.wait();
    if (repetition > 0) best = std::max(best, flops / seconds_since(start));  // the first warms up
  }
  return best;
}

double measure_read_bandwidth(size_t bytes, int threads, int repetitions) {
  require(bytes >= 4096 && threads > 0 && repetitions > 0, "measure_read_bandwidth: nothing to measure");
  const cpu::AlignedBuffer buffer(bytes);
  const auto* words = reinterpret_cast<const uint64_t*>(buffer.data());
  const size_t count = bytes / sizeof(uint64_t);
  uint64_t sum = 0;
  double best = 0.0;
  for (int repetition = 0; repetition < repetitions; ++repetition) {
    const Clock::time_point start = Clock::now();
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : sum)
    for (int thread = 0; thread < threads; ++thread) {
      const size_t first = count * static_cast<size_t>(thread) / static_cast<size_t>(threads);
      const size_t last = count * (static_cast<size_t>(thread) + 1) / static_cast<size_t>(threads);
      sum += read_words(words + first, last - first);
    }
    best = std::max(best, static_cast<double>(bytes) / seconds_since(start));
  }
  volatile uint64_t keep = sum;  // else the reads could be left out
  static_cast<void>(keep);
  return best;
}

int kernel_threads() { return omp_get_max_threads(); }

}  // namespace scd::kernels
