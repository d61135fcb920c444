#include "kernels/attention_few.h"
#include "kernels/attention_lanes.h"

namespace scd::kernels::cpu {

int64_t attention_scratch_floats(int64_t head_dim) {
  return 2 * head_dim * kTileQueries + kKeyBlock * (kTileQueries + 2 * head_dim) + 3 * kTileQueries;
}

void attend_portable(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  if (few_fits(args, tile)) return attend_few_queries(args, tile, scratch);
  attend_in_lanes(args, tile, scratch);
}

}  // namespace scd::kernels::cpu
