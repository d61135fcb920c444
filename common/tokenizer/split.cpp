#include "common/tokenizer/split.h"

#include <algorithm>
#include <string>

namespace scd {
namespace {

// Joins a stretch to the one before it where `joins(previous is match, this is match)` says so.
template <class Joins>
void join(std::vector<Stretch>& stretches, Joins joins) {
  size_t kept = 0;
  bool previous_is_match = false;
  for (const Stretch stretch : stretches) {
    if (kept > 0 && joins(previous_is_match, stretch.is_match)) {
      stretches[kept - 1].end = stretch.end;
    } else {
      stretches[kept++] = stretch;
    }
    previous_is_match = stretch.is_match;
  }
  stretches.resize(kept);
}

}  // namespace

SplitBehavior read_split_behavior(const JsonField& field) {
  const std::string& name = field.string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  field.refuse("split behavior '" + name + "'");
}

void merge_stretches(SplitBehavior behavior, std::vector<Stretch>& stretches) {
  switch (behavior) {
    case SplitBehavior::kIsolated: return;
    case SplitBehavior::kRemoved:
      std::erase_if(stretches, [](const Stretch& stretch) { return stretch.is_match; });
      return;
    case SplitBehavior::kContiguous:
      join(stretches, [](bool previous, bool current) { return previous == current; });
      return;
    case SplitBehavior::kMergedWithPrevious:
      join(stretches, [](bool previous, bool current) { return !previous && current; });
      return;
    case SplitBehavior::kMergedWithNext:
      join(stretches, [](bool previous, bool current) { return previous && !current; });
      return;
  }
}

}  // namespace scd
