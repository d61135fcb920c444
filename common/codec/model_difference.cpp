#include "common/codec/model_difference.h"

#include "common/base/error.h"

namespace scd {

void require_same_kv_shape(const CodecModel& producer, const CodecModel& consumer, std::string_view who) {
  const auto require_equal = [who](int32_t ours, int32_t theirs, std::string_view what) {
    if (ours == theirs) return;
    throw Error(ErrorCode::kFailedPrecondition, std::string(who) + ": producer has " + std::string(what) + " " +
                                                    std::to_string(ours) + ", consumer " + std::to_string(theirs) +
                                                    "; they must be equal");
  };
  require_equal(producer.layers, consumer.layers, "layers");
  require_equal(producer.kv_heads, consumer.kv_heads, "kv_heads");
  require_equal(producer.head_dim, consumer.head_dim, "head_dim");
}

}  // namespace scd
