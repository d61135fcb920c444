#include <map>
#include <utility>

#include "common/base/check.h"
#include "prefill_server/store/redis_cluster.h"
#include "prefill_server/store/redis_servers.h"

namespace scd {

RedisList::RedisList(std::vector<RedisNodeOptions> nodes) {
  SCD_CHECK(!nodes.empty(), "a store has servers");
  for (RedisNodeOptions& options : nodes) nodes_.push_back(std::make_unique<RedisNode>(std::move(options)));
}

RedisNode& RedisList::node_of(const std::string& key) const { return *nodes_[redis_slot(key) % nodes_.size()]; }

std::vector<std::optional<ByteBuffer>> RedisList::get(std::span<const std::string> keys,
                                                      RedisNode::Clock::time_point deadline) {
  std::map<RedisNode*, std::vector<size_t>> of_node;
  for (size_t i = 0; i < keys.size(); ++i) of_node[&node_of(keys[i])].push_back(i);
  std::vector<std::optional<ByteBuffer>> values(keys.size());
  for (const auto& [node, indices] : of_node) {
    std::vector<std::string> some;
    for (const size_t i : indices) some.push_back(keys[i]);
    const auto answers = node->get(some, /*asking=*/false, deadline);
    for (size_t k = 0; k < answers.size(); ++k) {
      if (answers[k].kind == RedisAnswer::Kind::kValue) values[indices[k]] = answers[k].value;
    }
  }
  return values;
}

bool RedisList::set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires) {
  return node_of(key).set(key, value, expires, /*asking=*/false).kind == RedisAnswer::Kind::kDone;
}

uint64_t RedisList::failures() const {
  uint64_t failures = 0;
  for (const auto& node : nodes_) failures += node->failures();
  return failures;
}

}  // namespace scd
