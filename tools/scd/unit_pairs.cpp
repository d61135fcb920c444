#include "tools/scd/unit_pairs.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace scd {
namespace {

// Fewer train nothing.
constexpr int64_t kFewestTokens = 256;

DenseMatrix columns_of(const DenseMatrix& rows, int64_t first, int64_t count) {
  DenseMatrix out(rows.rows, count);
  for (int64_t row = 0; row < rows.rows; ++row) {
    std::copy_n(rows.view().row<float>(row) + first, count, out.view().row<float>(row));
  }
  return out;
}

}  // namespace

UnitPairs::UnitPairs(const CodecModel& producer, const CodecModel& consumer, std::vector<AnchoredUnit> units,
                     const UnitPairsOptions& options)
    : units_(std::move(units)) {
  int64_t token_bytes = 0;
  for (const AnchoredUnit& of : units_) {
    widths_.push_back(widths_of(of, producer, consumer));
    const auto& [source, target, anchor] = widths_.back();
    token_bytes += int64_t{sizeof(kernels::BFloat16)} * (source + target + anchor);
  }
  const int64_t fitting = options.bytes / std::max<int64_t>(token_bytes, 1);
  const int64_t capacity = std::clamp(fitting, kFewestTokens, std::max(options.tokens, kFewestTokens));
  for (size_t i = 0; i < units_.size(); ++i) {
    const auto& [source, target, anchor] = widths_[i];
    // The same tokens of all units, whatever plans there are.
    reservoirs_.emplace_back(capacity, source, target + anchor, options.seed);
  }
}

void UnitPairs::add(size_t unit, const UnitRows& rows) { reservoirs_[unit].add(rows.x(), rows.yh()); }

UnitPairs::Rows UnitPairs::rows(const AnchoredUnit& of) const {
  const auto found = std::ranges::find(units_, of);
  SCD_CHECK(found != units_.end(), "a unit of the plans");
  const auto index = static_cast<size_t>(found - units_.begin());
  const DenseMatrix yh = reservoirs_[index].second();
  const auto& [source, target, anchor] = widths_[index];
  return {reservoirs_[index].first(), columns_of(yh, 0, target), columns_of(yh, target, anchor)};
}

}  // namespace scd
