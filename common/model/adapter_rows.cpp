#include "common/model/adapter_rows.h"

#include <algorithm>

namespace scd {

void AdapterRows::assign(std::span<const AdapterRun> runs, kernels::Device device) {
  groups_.clear();
  rows_.clear();
  on_device_ = nullptr;
  for (const AdapterRun& run : runs) {
    if (run.adapter == nullptr || std::ranges::find(groups_, run.adapter, &Group::adapter) != groups_.end()) continue;
    groups_.push_back({.adapter = run.adapter});
  }
  if (empty()) return;
  for (Group& group : groups_) {
    group.first = std::ssize(rows_);
    int64_t row = 0;
    for (const AdapterRun& run : runs) {
      for (int64_t i = 0; run.adapter == group.adapter && i < run.rows; ++i) {
        rows_.push_back(static_cast<int32_t>(row + i));
      }
      row += run.rows;
    }
    group.count = std::ssize(rows_) - group.first;
  }
  if (device == kernels::Device::kCpu) return;
  // Numbers of the same width.
  const kernels::Matrix there = device_memory_.matrix(1, std::ssize(rows_), kernels::DType::kF32, device);
  kernels::send(rows_, device, static_cast<std::byte*>(there.data));
  on_device_ = static_cast<const int32_t*>(there.data);
}

kernels::Indices AdapterRows::rows_of(const Group& group) const {
  return {std::span(rows_).subspan(static_cast<size_t>(group.first), static_cast<size_t>(group.count)),
          on_device_ == nullptr ? nullptr : on_device_ + group.first};
}

void AdapterRows::add(int32_t layer, AdaptedLinear linear, const kernels::ConstMatrix& x, const kernels::Matrix& y) {
  if (empty()) return;
  terms_.clear();
  for (const Group& group : groups_) {
    const kernels::PackedLowRank* factors = group.adapter->find(layer, linear);
    if (factors != nullptr) terms_.push_back({factors, rows_of(group)});
  }
  if (!terms_.empty()) kernels::add_low_rank(x, y, terms_);
}

void AdapterRows::add_to_logits(std::span<const int64_t> chosen_rows, const kernels::ConstMatrix& x,
                                const kernels::Matrix& y) {
  for (const Group& group : groups_) {
    if (group.adapter->lm_head() == nullptr) continue;
    const auto rows = rows_of(group).host;
    std::vector<int32_t> chosen;
    for (size_t i = 0; i < chosen_rows.size(); ++i) {
      if (std::ranges::binary_search(rows, static_cast<int32_t>(chosen_rows[i]))) {
        chosen.push_back(static_cast<int32_t>(i));
      }
    }
    const kernels::LowRankGroup term{group.adapter->lm_head(), chosen};
    kernels::add_low_rank(x, y, std::span(&term, 1));
  }
}

}  // namespace scd
