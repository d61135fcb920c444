#include "kernels/attention_few.h"
#include "kernels/attention_lanes.h"

namespace scd::kernels::cpu {

void attend_avx512(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  if (few_fits(args, tile)) return attend_few_queries(args, tile, scratch);
  attend_in_lanes(args, tile, scratch);
}

}  // namespace scd::kernels::cpu
