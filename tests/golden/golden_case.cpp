#include "tests/golden/golden_case.h"

#include <algorithm>
#include <fstream>
#include <numeric>

#include "common/model/json_file.h"
#include "tests/support/test_data.h"

namespace scd::testing {

std::optional<GoldenCase> golden_case(const std::string& name) {
  const auto folder = test_data("golden/" + name);
  if (!folder) return std::nullopt;
  const JsonFile file(*folder / "case.json");
  GoldenCase golden;
  golden.load.directory = *folder;
  if (file.has("base")) {
    golden.load.directory = folder->parent_path() / file.text("base", "");
    golden.load.adapter = *folder;
  }
  // The logits of half-precision checkpoints come from a module converted to the stored type and back, RoPE's frequency
  // buffer with it; those of the adapters from one loaded in FP32.
  const JsonFile config(golden.load.directory / "config.json");
  const std::string stored = config.text("dtype", config.text("torch_dtype", "float32"));
  const bool converted = !golden.load.adapter.has_value();
  if (converted && stored == "bfloat16") golden.load.rope_frequencies = kernels::DType::kBF16;
  if (converted && stored == "float16") golden.load.rope_frequencies = kernels::DType::kF16;
  golden.input_ids = file.root()["input_ids"].get<std::vector<TokenId>>();
  golden.greedy = file.root()["greedy"].get<std::vector<TokenId>>();
  golden.vocab = file.integer("vocab", ModelConfig::from_directory(golden.load.directory).vocab);
  golden.logits.resize(golden.input_ids.size() * static_cast<size_t>(golden.vocab));
  std::ifstream in(*folder / "logits.f32", std::ios::binary);
  in.read(reinterpret_cast<char*>(golden.logits.data()), static_cast<std::streamsize>(golden.logits.size() * 4));
  SCD_CHECK(in.good(), "logits.f32 holds [tokens, vocab]");
  return golden;
}

Sequence::Sequence(const Model& model, int64_t max_tokens)
    : model_(model),
      cache_(model.config().kv_shape(model.precision()), static_cast<int32_t>(max_tokens / kPageTokens + 1),
             model.device()),
      pages_(cache_.pool().make_table()) {
  std::move(pages_.reserve(max_tokens)).value_or_throw();
}

std::vector<float> Sequence::run(std::span<const TokenId> tokens) {
  const SequenceChunk batch = chunk(tokens);
  ForwardPass pass(model_, cache_, std::span(&batch, 1));
  while (pass.next_layer() < model_.config().layers) pass.run_layer();
  std::vector<int64_t> rows(tokens.size());
  std::iota(rows.begin(), rows.end(), 0);
  const auto logits = pass.logits(rows);
  position_ += static_cast<int64_t>(tokens.size());
  const auto* begin = logits.row<float>(0);
  return {begin, begin + logits.rows * logits.columns};
}

std::vector<TokenId> Sequence::greedy(std::span<const TokenId> prompt, size_t steps) {
  std::vector<TokenId> ids;
  auto logits = run(prompt);
  const int64_t vocab = model_.config().vocab;
  ids.push_back(most_probable(row_of(logits, vocab, prompt.size() - 1)));
  while (ids.size() < steps) {
    const TokenId last = ids.back();
    logits = run(std::span(&last, 1));
    ids.push_back(most_probable(logits));
  }
  return ids;
}

TokenId most_probable(std::span<const float> logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

float margin(std::span<const float> logits) {
  std::vector<float> sorted(logits.begin(), logits.end());
  std::ranges::partial_sort(sorted, sorted.begin() + 2, std::ranges::greater());
  return sorted[0] - sorted[1];
}

std::span<const float> row_of(const std::vector<float>& logits, int64_t vocab, size_t row) {
  return std::span(logits).subspan(row * static_cast<size_t>(vocab), static_cast<size_t>(vocab));
}

}  // namespace scd::testing
