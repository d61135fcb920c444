#include "kernels/attention_lanes.h"

namespace scd::kernels::cpu {

void attend_avx512(const AttentionArgs& args, const AttentionTile& tile, float* scratch) {
  attend_in_lanes(args, tile, scratch);
}

}  // namespace scd::kernels::cpu
