#include "common/rebuild/decoded_rows.h"

#include <vector>

#include "common/base/check.h"
#include "kernels/paged_kv.h"
#include "kernels/unrotated_kv.h"

namespace scd {
kernels::ConstMatrix decoded_rows(kernels::ConstMatrix rows, int64_t skipped) {
  return kernels::rows_of(rows, skipped, rows.rows - skipped);
}

void write_decoded(const Model& model, KvCache& cache, const DecodedPlace& place, const DecodedLayer& decoded) {
  SCD_CHECK(decoded.kind != DecodedKind::kResidual, "keys and values, or what gives them");
  if (place.skipped >= decoded.tokens) return;
  const int64_t first = place.first_position + place.skipped;
  if (decoded.kind == DecodedKind::kAttentionInput) {
    project_keys_values(model, cache, place.first_layer, {&place.pages, first, {}, place.adapter},
                        decoded_rows(decoded.hidden_rows(), place.skipped));
    return;
  }
  const kernels::ConstMatrix keys = decoded_rows(decoded.key_rows(), place.skipped);
  const kernels::ConstMatrix values = decoded_rows(decoded.value_rows(), place.skipped);
  const kernels::SequenceRows rows{place.pages.page_ids(), 0, keys.rows, first};
  const int64_t width = cache.shape().kv_width();
  if (decoded.on_device.present && decoded.on_device.rope != nullptr) {
    std::vector<kernels::PagedKv> layers;
    for (int64_t column = 0; column < keys.columns; column += width) {
      layers.push_back(cache.layer(place.first_layer + static_cast<int32_t>(column / width)));
    }
    kernels::write_unrotated_kv(layers, rows, *decoded.on_device.rope, keys, values);
    return;
  }
  for (int64_t column = 0; column < keys.columns; column += width) {
    const auto layer = place.first_layer + static_cast<int32_t>(column / width);
    kernels::write_kv(cache.layer(layer), std::span(&rows, 1), kernels::columns_of(keys, column, width),
                      kernels::columns_of(values, column, width));
  }
}

}  // namespace scd
