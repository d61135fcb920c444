// A Redis Cluster: each key belongs to one of 16384 slots, each slot to one server, and the servers say which
// (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec). Keys are asked for where their slot is;
// who is told MOVED or ASK follows.
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "prefill_server/store/redis_servers.h"

namespace scd {

inline constexpr uint16_t kRedisSlots = 16384;

// CRC-16 (XMODEM) of the key, or of what stands in its first {}, modulo 16384.
uint16_t redis_slot(std::string_view key);

// "MOVED 3999 127.0.0.1:6381" or "ASK ...": where the slot is, for good or for this once.
struct RedisRedirect {
  bool ask = false;
  uint16_t slot = 0;
  std::string host;  // empty: the host that said so
  int port = 0;
};
std::optional<RedisRedirect> parse_redirect(std::string_view error);

class RedisCluster final : public RedisServers {
 public:
  // seeds: some of the cluster's servers, asked for the slots of all; `node` says the rest of each server's options.
  RedisCluster(std::vector<RedisAddress> seeds, RedisNodeOptions node);
  std::vector<std::optional<ByteBuffer>> get(std::span<const std::string> keys,
                                             RedisNode::Clock::time_point deadline) override;
  bool set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires) override;
  uint64_t failures() const override;

 private:
  // Shared: calls under way use one that is no longer the cluster's.
  using Node = std::shared_ptr<RedisNode>;
  // Where a key is asked for.
  struct Place {
    Node node;  // null: not known
    bool asking = false;
    auto operator<=>(const Place&) const = default;
  };

  Node node_at(const std::string& host, int port);
  Place place_of(std::string_view key);
  // Where an answer sends its asker; nothing: it is an answer.
  std::optional<Place> redirected(const RedisAnswer& answer, const RedisNode& from);
  void learn_slots(RedisNode::Clock::time_point deadline);
  std::vector<Node> known_nodes();
  bool take_slots(const std::vector<RedisSlots>& ranges, const RedisNode& from);
  void forget_others();  // under mutex_

  const RedisNodeOptions options_;
  std::vector<std::pair<std::string, int>> seeds_;
  std::atomic<bool> stale_{true};                      // acq_rel: who takes it learns the slots
  mutable std::mutex mutex_;                           // guards all below
  std::map<std::pair<std::string, int>, Node> nodes_;  // the seeds, and those that have slots
  std::array<Node, kRedisSlots> slots_{};
  size_t next_unknown_ = 0;          // of nodes_: asked for a slot that nobody is known to have
  uint64_t failures_of_others_ = 0;  // of nodes that were forgotten
  RedisNode::Clock::time_point learnt_at_{};
};

}  // namespace scd
