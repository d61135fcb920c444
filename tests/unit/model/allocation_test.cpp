// Steady decoding allocates nothing: a binary of its own, since it counts what the whole process takes.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "common/model/adapter.h"
#include "common/model/make_model.h"
#include "tests/unit/model/adapter_files.h"
#include "tests/unit/model/model_files.h"
#include "tests/unit/model/tiny_model.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace scd {
namespace {

class SteadyDecode : public ::testing::TestWithParam<std::tuple<kernels::DType, bool>> {};

TEST_P(SteadyDecode, AllocatesNothing) {
  const auto [precision, adapted] = GetParam();
  testing::TemporaryFolder folder;
  make_model({}, folder.path());
  const Model model = Model::load({.directory = folder.path(), .precision = precision});
  testing::write_adapter(folder.path(), folder.path() / "adapter", 1);
  const Adapter adapter(model, folder.path() / "adapter");
  testing::OneSequence sequence(model, 64);
  const auto ids = testing::some_ids(20);
  const SequenceChunk prompt{&sequence.pages, 0, ids};
  forward_last_logits(model, sequence.cache, std::span(&prompt, 1));
  const auto step = [&](int64_t position) {
    const SequenceChunk chunk{&sequence.pages, position, std::span(ids).first(1), adapted ? &adapter : nullptr};
    ForwardPass pass(model, sequence.cache, std::span(&chunk, 1));
    while (pass.next_layer() < model.config().layers) pass.run_layer();
    const int64_t row = 0;
    pass.logits(std::span(&row, 1));
  };
  step(20);
  step(21);
  const int64_t before = allocations.load(std::memory_order_relaxed);
  for (int64_t position = 22; position < 40; ++position) step(position);
  EXPECT_EQ(allocations.load(std::memory_order_relaxed) - before, 0);
}

INSTANTIATE_TEST_SUITE_P(Precisions, SteadyDecode,
                         ::testing::Combine(::testing::Values(kernels::DType::kF32, kernels::DType::kBF16),
                                            ::testing::Bool()));

}  // namespace
}  // namespace scd
