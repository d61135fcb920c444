// An adapter beside the weights gives what it gives in them, in every way a pass is run.
#include "common/model/adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "common/model/make_model.h"
#include "common/model/native_layers.h"
#include "kernels/paged_kv.h"
#include "tests/unit/model/adapter_files.h"
#include "tests/unit/model/model_files.h"
#include "tests/unit/model/tiny_model.h"

namespace scd {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::OneSequence;
using testing::some_ids;

class AdapterTest : public ::testing::Test {
 protected:
  AdapterTest() {
    make_model({.dtype = "float32"}, base_folder());
    testing::write_adapter(base_folder(), adapter_folder(), 3);
    base_ = std::make_unique<Model>(load({}));
    adapter_ = std::make_unique<Adapter>(*base_, adapter_folder());
    merged_ = std::make_unique<Model>(load(adapter_folder()));
  }
  std::filesystem::path base_folder() const { return folder_.path() / "base"; }
  std::filesystem::path adapter_folder() const { return folder_.path() / "adapter"; }
  Model load(const std::optional<std::filesystem::path>& adapter) const {
    return Model::load({.directory = base_folder(), .adapter = adapter, .precision = kernels::DType::kF32});
  }
  int32_t layers() const { return base_->config().layers; }

  // Of a layer, keys then values of tokens from `first` on.
  std::vector<float> kept(const OneSequence& sequence, int32_t layer, int64_t first, int64_t count) const {
    const int64_t width = sequence.cache.shape().kv_width();
    std::vector<float> values(static_cast<size_t>(2 * count * width));
    const kernels::SequenceRows rows{sequence.pages.page_ids(), 0, count, first};
    kernels::read_kv(sequence.cache.layer(layer), rows, kernels::matrix(values.data(), count, width),
                     kernels::matrix(values.data() + count * width, count, width));
    return values;
  }

  testing::TemporaryFolder folder_;
  std::unique_ptr<Model> base_, merged_;
  std::unique_ptr<Adapter> adapter_;
};

TEST_F(AdapterTest, passes_over_several_adapters_give_each_its_own) {
  testing::write_adapter(base_folder(), folder_.path() / "other", 4);
  const Adapter other(*base_, folder_.path() / "other");
  const Model other_merged = load(folder_.path() / "other");
  const auto ids = some_ids(20);
  KvCache cache(base_->config().kv_shape(kernels::DType::kF32), 16);
  std::vector<PageTable> tables;
  std::vector<SequenceChunk> batch;
  const std::vector<const Adapter*> adapters{adapter_.get(), &other, nullptr, adapter_.get(), &other};
  for (size_t i = 0; i < adapters.size(); ++i) {
    tables.push_back(cache.pool().make_table());
    std::move(tables.back().reserve(20)).value_or_throw();
  }
  for (size_t i = 0; i < adapters.size(); ++i) {
    batch.push_back({&tables[i], 0, std::span(ids).first(16 + i), adapters[i]});
  }
  const auto logits = forward_last_logits(*base_, cache, batch);
  const auto vocab = static_cast<size_t>(base_->config().vocab);
  for (size_t i = 0; i < adapters.size(); ++i) {
    const Model& model = adapters[i] == nullptr ? *base_ : adapters[i] == &other ? other_merged : *merged_;
    const auto expected = testing::logits_of(model, batch[i].tokens);
    EXPECT_LT(testing::largest_difference(std::span(logits).subspan(i * vocab, vocab),
                                          std::span(expected).subspan((15 + i) * vocab, vocab)),
              2e-4f)
        << "sequence " << i;
  }
  EXPECT_GT(testing::largest_difference(testing::logits_of(*merged_, ids), testing::logits_of(other_merged, ids)),
            0.1f);
}

TEST_F(AdapterTest, native_layers_and_projected_inputs_have_it_as_well) {
  const auto ids = some_ids(32);
  OneSequence whole(*merged_, 32), native(*base_, 32), projected(*base_, 32);
  const SequenceChunk all{&whole.pages, 0, ids};
  ForwardPass pass(*merged_, whole.cache, std::span(&all, 1));
  NativeLayers layers({.model = *base_,
                       .cache = native.cache,
                       .pages = native.pages,
                       .tokens = ids,
                       .layers = 2,
                       .adapter = adapter_.get()});
  layers.begin(20);
  layers.run_chunk();
  layers.begin(12);
  layers.run_chunk();
  for (int32_t layer = 0; layer < this->layers(); ++layer) {
    pass.keep_attention_input(true);
    pass.run_layer();
    const SequenceChunk where{&projected.pages, 0, {}, adapter_.get()};
    project_keys_values(*base_, projected.cache, layer, where, pass.attention_input());
    const auto expected = kept(whole, layer, 0, 32);
    EXPECT_LT(testing::largest_difference(kept(projected, layer, 0, 32), expected), 1e-4f) << "layer " << layer;
    if (layer < 2) {
      EXPECT_LT(testing::largest_difference(kept(native, layer, 0, 32), expected), 1e-4f) << "layer " << layer;
    }
  }
}

TEST_F(AdapterTest, what_it_leaves_alone_costs_nothing) {
  const std::vector<int32_t> second{1};
  testing::write_key_value_adapter(base_folder(), folder_.path() / "few", second);
  const Adapter few(*base_, folder_.path() / "few");
  EXPECT_EQ(few.factors()[Adapter::index_of(0, AdaptedLinear::kQkv)], nullptr);
  EXPECT_NE(few.factors()[Adapter::index_of(1, AdaptedLinear::kQkv)], nullptr);
  EXPECT_EQ(few.factors()[Adapter::index_of(1, AdaptedLinear::kDown)], nullptr);
  EXPECT_EQ(few.bytes(), few.factors()[Adapter::index_of(1, AdaptedLinear::kQkv)]->packed_bytes());
  EXPECT_LT(few.bytes(), adapter_->bytes());
}

TEST_F(AdapterTest, its_file_says_about_what_it_will_take) {
  const size_t said = Adapter::bytes_by_file(adapter_folder(), kernels::DType::kBF16);
  const Model narrow =
      Model::load({.directory = base_folder(), .adapter = std::nullopt, .precision = kernels::DType::kBF16});
  const size_t taken = Adapter(narrow, adapter_folder()).bytes();
  EXPECT_GE(said, taken);
  EXPECT_LE(said, 4 * taken) << "numbers in F32, and what the file says of them";
  EXPECT_EQ(Adapter::bytes_by_file(folder_.path() / "missing", kernels::DType::kBF16), 0);
}

TEST_F(AdapterTest, a_foreign_or_too_large_one_is_refused_by_name) {
  const int64_t hidden = base_->config().hidden;
  const auto write = [&](const std::string& module, int64_t rank) {
    std::mt19937 random(1);
    const int64_t width = int64_t{base_->config().kv_heads} * base_->config().head_dim;
    const std::vector<testing::OwnedTensor> tensors{testing::random_factor(module + ".lora_A", rank, hidden, random),
                                                    testing::random_factor(module + ".lora_B", width, rank, random)};
    testing::write_adapter_of(tensors, folder_.path() / "wrong");
    testing::edit_json(folder_.path() / "wrong" / "adapter_config.json", [&](auto& config) { config["r"] = rank; });
  };
  write("0.self_attn.gate_proj", 4);
  EXPECT_THAT(error_of([&] { Adapter(*base_, folder_.path() / "wrong"); }), HasSubstr("no linear layer of this name"));
  write("0.self_attn.k_proj", 513);
  EXPECT_THAT(error_of([&] { Adapter(*base_, folder_.path() / "wrong"); }), HasSubstr("rank 513"));
  write("0.self_attn.q_proj", 4);
  EXPECT_THAT(error_of([&] { Adapter(*base_, folder_.path() / "wrong"); }), HasSubstr("expected shape"));
}

}  // namespace
}  // namespace scd
