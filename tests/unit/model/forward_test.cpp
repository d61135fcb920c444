// The pass as its callers drive it: layer by layer, in pieces, in batches.
#include "common/model/forward.h"

#include <gtest/gtest.h>

#include "common/model/make_model.h"
#include "kernels/paged_kv.h"
#include "tests/unit/model/model_files.h"
#include "tests/unit/model/tiny_model.h"

namespace scd {
namespace {

using kernels::DType;
using testing::largest_difference;
using testing::logits_of;
using testing::OneSequence;
using testing::some_ids;

struct Variant {
  const char* family;
  DType precision;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.family; }

class Forward : public ::testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    make_model({.family = GetParam().family}, folder_.path());
    model_ =
        std::make_unique<const Model>(Model::load({.directory = folder_.path(), .precision = GetParam().precision}));
  }
  // Sums of other lengths may round otherwise.
  float tolerance() const { return GetParam().precision == DType::kF32 ? 1e-4f : 6e-2f; }
  std::vector<float> keys_and_values(const KvCache& cache, const PageTable& pages, int32_t layer,
                                     int64_t tokens) const {
    const int64_t width = cache.shape().kv_width();
    std::vector<float> both(static_cast<size_t>(2 * tokens * width));
    kernels::read_kv(cache.layer(layer), {pages.page_ids(), 0, tokens, 0}, kernels::matrix(both.data(), tokens, width),
                     kernels::matrix(both.data() + tokens * width, tokens, width));
    return both;
  }
  testing::TemporaryFolder folder_;
  std::unique_ptr<const Model> model_;
};

TEST_P(Forward, ChunksOfAnySizeGiveTheSameLogits) {
  const auto ids = some_ids(50);
  const auto whole = logits_of(*model_, ids);
  for (const size_t chunk : {1, 15, 16, 17, 33}) {
    OneSequence sequence(*model_, 50);
    std::vector<float> last;
    for (size_t first = 0; first < ids.size(); first += chunk) {
      const auto part = std::span(ids).subspan(first, std::min(chunk, ids.size() - first));
      const SequenceChunk piece{&sequence.pages, static_cast<int64_t>(first), part};
      last = forward_last_logits(*model_, sequence.cache, std::span(&piece, 1));
    }
    EXPECT_LE(largest_difference(last, std::span(whole).last(last.size())), tolerance()) << "chunks of " << chunk;
  }
}

TEST_P(Forward, SequencesOfABatchDoNotSeeEachOther) {
  const auto ids = some_ids(40);
  KvCache cache(model_->config().kv_shape(model_->precision()), 16);
  std::vector<PageTable> tables(3);
  const std::vector<std::span<const TokenId>> tokens{std::span(ids).first(31), std::span(ids).last(1),
                                                     std::span(ids).subspan(3, 33)};
  std::vector<SequenceChunk> batch;
  for (size_t i = 0; i < tables.size(); ++i) {
    tables[i] = cache.pool().make_table();
    std::move(tables[i].reserve(40)).value_or_throw();
    batch.push_back({&tables[i], 0, tokens[i]});
  }
  const auto together = forward_last_logits(*model_, cache, batch);
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto alone = logits_of(*model_, tokens[i]);
    const auto vocab = static_cast<size_t>(model_->config().vocab);
    EXPECT_LE(largest_difference(std::span(together).subspan(i * vocab, vocab), std::span(alone).last(vocab)),
              tolerance());
  }
}

TEST_P(Forward, KeysOfTheFirstLayerNeedOnlyTheTokens) {
  const auto ids = some_ids(20);
  OneSequence full(*model_, 20), only(*model_, 20);
  const SequenceChunk chunk{&full.pages, 0, ids};
  forward_last_logits(*model_, full.cache, std::span(&chunk, 1));
  const SequenceChunk other{&only.pages, 0, ids};
  ForwardPass pass(*model_, only.cache, std::span(&other, 1));
  pass.run_keys_values_only();
  EXPECT_EQ(pass.next_layer(), 1);
  EXPECT_EQ(keys_and_values(only.cache, only.pages, 0, 20), keys_and_values(full.cache, full.pages, 0, 20));
}

TEST_P(Forward, KeptAttentionInputProjectsToTheSameKeysAndValues) {
  const auto ids = some_ids(24);
  OneSequence original(*model_, 24), rebuilt(*model_, 24);
  const SequenceChunk chunk{&original.pages, 0, ids};
  ForwardPass pass(*model_, original.cache, std::span(&chunk, 1));
  for (int32_t layer = 0; layer < model_->config().layers; ++layer) {
    pass.keep_attention_input(layer % 2 == 1);
    pass.run_layer();
    if (layer % 2 == 0) continue;
    const auto input = pass.attention_input();
    ASSERT_EQ(input.rows, 24);
    project_keys_values(*model_, rebuilt.cache, layer, {&rebuilt.pages, 0, {}}, input);
    EXPECT_EQ(keys_and_values(rebuilt.cache, rebuilt.pages, layer, 24),
              keys_and_values(original.cache, original.pages, layer, 24));
  }
}

TEST_P(Forward, KeepingTheInputChangesNothing) {
  const auto ids = some_ids(24);
  const auto plain = logits_of(*model_, ids);
  OneSequence sequence(*model_, 24);
  const SequenceChunk chunk{&sequence.pages, 0, ids};
  ForwardPass pass(*model_, sequence.cache, std::span(&chunk, 1));
  pass.keep_attention_input(true);
  EXPECT_EQ(testing::finish(pass, *model_), plain);
}

TEST_P(Forward, TwoPassesMayBeUnderWayAtOnce) {
  const auto ids = some_ids(30);
  OneSequence a(*model_, 30), b(*model_, 30);
  const SequenceChunk first{&a.pages, 0, std::span(ids).first(20)}, second{&b.pages, 0, std::span(ids).last(20)};
  ForwardPass pass_a(*model_, a.cache, std::span(&first, 1));
  ForwardPass pass_b(*model_, b.cache, std::span(&second, 1));
  while (pass_a.next_layer() < model_->config().layers) {
    pass_a.run_layer();
    pass_b.run_layer();
  }
  EXPECT_EQ(testing::finish(pass_a, *model_), logits_of(*model_, std::span(ids).first(20)));
}

INSTANTIATE_TEST_SUITE_P(Families, Forward,
                         ::testing::Values(Variant{"llama", DType::kF32}, Variant{"llama", DType::kBF16},
                                           Variant{"qwen2", DType::kF32}, Variant{"qwen3", DType::kBF16},
                                           Variant{"mistral", DType::kBF16}),
                         [](const auto& param) {
                           return std::string(param.param.family) +
                                  (param.param.precision == DType::kF32 ? "_fp32" : "_bf16");
                         });

}  // namespace
}  // namespace scd
