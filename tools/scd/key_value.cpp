#include "tools/scd/key_value.h"

#include <algorithm>
#include <iterator>

#include "common/base/error.h"

namespace scd {
namespace {

// The first of `keep` records that hold `gold` at the same relative place as the `total` did.
size_t window_begin(size_t gold, size_t total, size_t keep) {
  return total > 1 ? gold * (total - keep) / (total - 1) : 0;
}

}  // namespace

Question key_value_question(const KeyValueCase& item, int32_t keys) {
  const auto gold = std::ranges::find(item.records, std::pair(item.key, item.value));
  if (gold == item.records.end()) {
    throw Error(ErrorCode::kInvalidArgument,
                "no record of ordered_kv_records holds key '" + item.key + "' with value '" + item.value + "'");
  }
  const size_t total = item.records.size();
  const size_t keep = keys > 0 ? std::min(total, static_cast<size_t>(keys)) : total;
  const size_t begin = window_begin(static_cast<size_t>(gold - item.records.begin()), total, keep);
  std::string object;
  for (size_t i = begin; i < begin + keep; ++i) {
    const auto& [key, value] = item.records[i];
    object += (object.empty() ? "{\"" : ",\n \"") + key + "\": \"" + value + "\"";
  }
  return {
      item.key,
      "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n" + object + "}",
      item.key,
      {item.value},
      "\n\nKey: \"" + item.key + "\"\nCorresponding value:"};
}

}  // namespace scd
