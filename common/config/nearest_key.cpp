#include "common/config/nearest_key.h"

#include <algorithm>
#include <numeric>

namespace scd {
namespace {

// Levenshtein's distance, one row at a time.
size_t edits(std::string_view from, std::string_view to) {
  std::vector<size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= from.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= to.size(); ++j) {
      const size_t replaced = diagonal + (from[i - 1] == to[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_key(std::string_view wanted, const std::vector<std::string>& known) {
  constexpr size_t kLongestKey = 100;
  if (wanted.size() > kLongestKey) return {};
  std::string best;
  size_t best_edits = std::max<size_t>(2, wanted.size() / 2) + 1;
  for (const std::string& key : known) {
    const size_t distance = edits(wanted, key);
    if (distance < best_edits) {
      best_edits = distance;
      best = key;
    }
  }
  return best;
}

}  // namespace scd
