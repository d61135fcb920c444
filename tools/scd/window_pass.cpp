#include "tools/scd/window_pass.h"

#include <algorithm>

#include "common/codec/key_rotation.h"

namespace scd {
namespace {

// Rows of one matrix below those of another.
void append_rows(DenseMatrix& all, kernels::ConstMatrix rows) {
  all.columns = rows.columns;
  for (int64_t r = 0; r < rows.rows; ++r) {
    all.values.insert(all.values.end(), rows.row<float>(r), rows.row<float>(r) + rows.columns);
  }
  all.rows += rows.rows;
}

KvCache make_cache(const Model& model, std::span<const TokenWindow> windows) {
  int32_t pages = 0;
  for (const TokenWindow& window : windows) {
    pages += static_cast<int32_t>((window.size() + kPageTokens - 1) / kPageTokens);
  }
  return {model.config().kv_shape(model.precision()), pages, model.device()};
}

}  // namespace

WindowPass::WindowPass(const Model& model, std::span<const TokenWindow> windows, int64_t sinks)
    : model_(model), windows_(windows), skipped_(sinks), cache_(make_cache(model, windows)) {
  for (const TokenWindow& window : windows_) {
    pages_.push_back(cache_.pool().make_table());
    (void)pages_.back().reserve(static_cast<int64_t>(window.size())).value_or_throw();
  }
  for (size_t i = 0; i < windows_.size(); ++i) batch_.push_back({&pages_[i], 0, windows_[i]});
  pass_ = std::make_unique<ForwardPass>(model_, cache_, batch_);
  pass_->keep_attention_input(true);
}

KeysValues WindowPass::keys_values(int32_t layer) const {
  KeysValues rows;
  for (size_t i = 0; i < windows_.size(); ++i) {
    const int64_t count = static_cast<int64_t>(windows_[i].size()) - skipped_;
    if (count <= 0) continue;
    KeysValues window = read_rows(cache_, pages_[i], layer, {skipped_, count});
    rotate_chunk(window.keys.view(), model_.config().head_dim, skipped_, model_.config().rope,
                 kernels::RopeDirection::kUnrotate);
    append_rows(rows.keys, window.keys.view());
    append_rows(rows.values, window.values.view());
  }
  return rows;
}

DenseMatrix WindowPass::coded_rows(kernels::ConstMatrix all, bool unrotate) const {
  DenseMatrix rows;
  int64_t first_row = 0;
  for (const TokenWindow& window : windows_) {
    const auto tokens = static_cast<int64_t>(window.size());
    const int64_t count = tokens - skipped_;
    if (count > 0) {
      DenseMatrix coded(count, all.columns);
      for (int64_t r = 0; r < count; ++r) {
        std::copy_n(all.row<float>(first_row + skipped_ + r), all.columns, coded.view().row<float>(r));
      }
      if (unrotate) {
        rotate_chunk(coded.view(), model_.config().head_dim, skipped_, model_.config().rope,
                     kernels::RopeDirection::kUnrotate);
      }
      append_rows(rows, std::as_const(coded).view());
    }
    first_row += tokens;
  }
  return rows;
}

DenseMatrix WindowPass::attention_inputs() const { return coded_rows(pass_->attention_input(), false); }
DenseMatrix WindowPass::queries() const { return coded_rows(pass_->queries(), true); }

void for_each_batch(std::span<const TokenWindow> windows, int64_t batch_tokens,
                    const std::function<void(std::span<const TokenWindow>, double)>& visit) {
  size_t first = 0;
  while (first < windows.size()) {
    size_t last = first;
    int64_t tokens = 0;
    while (last < windows.size() &&
           (last == first || tokens + static_cast<int64_t>(windows[last].size()) <= batch_tokens)) {
      tokens += static_cast<int64_t>(windows[last++].size());
    }
    visit(windows.subspan(first, last - first), static_cast<double>(last) / static_cast<double>(windows.size()));
    first = last;
  }
}

}  // namespace scd
