#include "tools/scd/codec_bench_host.h"

#include <string>

#include "common/base/error.h"

namespace scd {

void CodecBenchHost::add(size_t unit, kernels::ConstMatrix codes, const std::vector<int64_t>& chunk_tokens) {
  const auto staging = [&] { return memory_.emplace_back().matrix(codes.rows, codes.columns); };
  int64_t first = 0;
  for (const int64_t tokens : chunk_tokens) {
    chunks_.push_back({units_.size(), static_cast<int32_t>(unit), first, tokens});
    first += tokens;
  }
  units_.push_back({codes, staging(), staging()});
  bodies_.resize(chunks_.size());
}

void CodecBenchHost::fetch() {
  for (const Unit& unit : units_) kernels::copy(unit.on_device, unit.coded);
}

void CodecBenchHost::code() {
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    bodies_[i].clear();
    quantiser_.encode(chunk.unit, level_, kernels::columns_of(units_[chunk.place].coded, chunk.first, chunk.tokens),
                      bodies_[i]);
  }
}

void CodecBenchHost::read() {
  std::string problem;
#pragma omp parallel for schedule(dynamic)
  for (size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& chunk = chunks_[i];
    const std::string wrong = quantiser_.decode(
        chunk.unit, level_, bodies_[i], kernels::columns_of(units_[chunk.place].read, chunk.first, chunk.tokens));
    if (wrong.empty()) continue;
#pragma omp critical
    problem = wrong;
  }
  if (!problem.empty()) throw Error(ErrorCode::kInternal, "bench codec, the host's coder: " + problem);
}

void CodecBenchHost::send_back() {
  for (const Unit& unit : units_) {
    kernels::copy(unit.read,
                  returned_.matrix(unit.read.rows, unit.read.columns, unit.read.dtype, kernels::Device::kGpu));
  }
}

}  // namespace scd
