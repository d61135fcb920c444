#include "tools/scd/window_pass.h"

#include <algorithm>

#include "common/codec/key_rotation.h"
#include "kernels/device.h"
#include "kernels/paged_kv.h"

namespace scd {
namespace {

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
  for_each_window([this](size_t, int64_t, int64_t, int64_t count) { rows_ += count; });
  for (size_t i = 0; i < windows_.size(); ++i) batch_.push_back({&pages_[i], 0, windows_[i]});
  pass_ = std::make_unique<ForwardPass>(model_, cache_, batch_);
  pass_->keep_attention_input(true);
}

void WindowPass::for_each_window(const std::function<void(size_t, int64_t, int64_t, int64_t)>& f) const {
  int64_t first = 0, first_coded = 0;
  for (size_t i = 0; i < windows_.size(); ++i) {
    const auto tokens = static_cast<int64_t>(windows_[i].size());
    const int64_t count = tokens - skipped_;
    if (count > 0) f(i, first, first_coded, count);
    first += tokens;
    first_coded += std::max<int64_t>(count, 0);
  }
}

void WindowPass::copy_coded(kernels::ConstMatrix all, kernels::Matrix to) const {
  for_each_window([&](size_t, int64_t first, int64_t first_coded, int64_t count) {
    kernels::copy(rows_of(all, first + skipped_, count), rows_of(to, first_coded, count));
  });
}

void WindowPass::unrotate(kernels::Matrix rows) const {
  for_each_window([&](size_t, int64_t, int64_t first_coded, int64_t count) {
    rotate_chunk(rows_of(rows, first_coded, count), model_.config().head_dim, skipped_, model_.config().rope,
                 kernels::RopeDirection::kUnrotate);
  });
}

void WindowPass::copy_residual(kernels::Matrix to) const { copy_coded(pass_->hidden_state_on_device(), to); }
void WindowPass::copy_attention_inputs(kernels::Matrix to) const { copy_coded(pass_->attention_input_on_device(), to); }

void WindowPass::copy_queries(kernels::Matrix to) const {
  copy_coded(pass_->queries_on_device(), to);
  unrotate(to);
}

void WindowPass::copy_keys_values(int32_t layer, kernels::Matrix keys, kernels::Matrix values) const {
  for_each_window([&](size_t window, int64_t, int64_t first_coded, int64_t count) {
    kernels::read_kv(cache_.layer(layer), {pages_[window].page_ids(), 0, count, skipped_},
                     rows_of(keys, first_coded, count), rows_of(values, first_coded, count));
  });
  unrotate(keys);
}

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
