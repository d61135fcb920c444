// Redis servers as the store sees them: by key a value. Which server has which key is theirs to decide (RedisCluster)
// or ours (RedisList).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"
#include "prefill_server/store/redis_node.h"

namespace scd {

// Thread-safe.
class RedisServers {
 public:
  virtual ~RedisServers() = default;
  // By key its value; nothing where it has none, or its server does not answer by the deadline.
  virtual std::vector<std::optional<ByteBuffer>> get(std::span<const std::string> keys,
                                                     RedisNode::Clock::time_point deadline) = 0;
  virtual bool set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires) = 0;
  virtual uint64_t failures() const = 0;
};

// Servers that know nothing of each other: a key is on one of them by its hash.
class RedisList final : public RedisServers {
 public:
  // nodes: one for each server.
  explicit RedisList(std::vector<RedisNodeOptions> nodes);
  std::vector<std::optional<ByteBuffer>> get(std::span<const std::string> keys,
                                             RedisNode::Clock::time_point deadline) override;
  bool set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires) override;
  uint64_t failures() const override;

 private:
  RedisNode& node_of(const std::string& key) const;

  std::vector<std::unique_ptr<RedisNode>> nodes_;
};

}  // namespace scd
