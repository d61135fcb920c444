#include "common/model/adapter_rows.h"

#include <algorithm>

namespace scd {

void AdapterRows::assign(std::span<const AdapterRun> runs, kernels::Device device, bool for_any) {
  sets_.clear();
  empty_ = !for_any;
  for (const AdapterRun& run : runs) {
    sets_.insert(sets_.end(), static_cast<size_t>(run.rows),
                 run.adapter == nullptr ? nullptr : &run.adapter->factors());
    empty_ = empty_ && run.adapter == nullptr;
  }
  if (!empty_) rows_.assign(sets_, device, for_any);
}

void AdapterRows::add(int32_t layer, AdaptedLinear linear, const kernels::ConstMatrix& x, const kernels::Matrix& y) {
  if (!empty_) kernels::add_low_rank(x, y, rows_, Adapter::index_of(layer, linear));
}

void AdapterRows::add_to_logits(std::span<const int64_t> chosen_rows, const kernels::ConstMatrix& x,
                                const kernels::Matrix& y) {
  if (empty_) return;
  bool all = chosen_rows.size() == sets_.size();
  for (size_t i = 0; i < chosen_rows.size(); ++i) all = all && chosen_rows[i] == static_cast<int64_t>(i);
  if (all) return kernels::add_low_rank(x, y, rows_, Adapter::kHead);
  chosen_sets_.clear();
  for (const int64_t row : chosen_rows) chosen_sets_.push_back(sets_[static_cast<size_t>(row)]);
  const auto changes_logits = [](const auto* set) { return set != nullptr && (*set)[Adapter::kHead] != nullptr; };
  if (std::ranges::none_of(chosen_sets_, changes_logits)) return;
  chosen_.assign(chosen_sets_, x.device);
  kernels::add_low_rank(x, y, chosen_, Adapter::kHead);
}

}  // namespace scd
