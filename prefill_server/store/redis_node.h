// One Redis or Valkey server: connections, time limits, and a breaker that leaves a server alone which failed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"

struct redisContext;
struct redisReply;

namespace scd {

// "redis://host:port", "redis://host:port/database" or "unix:/path/of/socket". Throws Error INVALID_ARGUMENT naming
// `key`.
struct RedisAddress {
  std::string text;
  std::string host;    // empty: a socket
  std::string socket;  // path
  int port = 6379;
  int database = 0;
};
RedisAddress parse_redis_address(const std::string& key, const std::string& text);

struct RedisNodeOptions {
  RedisAddress address;
  std::string password;  // empty: none
  std::chrono::milliseconds timeout{50};
  std::chrono::milliseconds retry_after{5000};
};

// Thread-safe; a connection serves one call at a time, and there are as many as calls at once.
class RedisNode {
 public:
  using Clock = std::chrono::steady_clock;
  explicit RedisNode(RedisNodeOptions options);
  ~RedisNode();
  RedisNode(const RedisNode&) = delete;
  RedisNode& operator=(const RedisNode&) = delete;

  // MGET: by key its value, or nothing where it has none. No answer where the server failed or is left alone.
  std::optional<std::vector<std::optional<ByteBuffer>>> get(std::span<const std::string> keys,
                                                            Clock::time_point deadline);
  // SET with an expiry. False: as above.
  bool set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires);

  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }

 private:
  struct Closer {
    void operator()(redisContext* context) const;
    void operator()(redisReply* reply) const;
  };
  using Connection = std::unique_ptr<redisContext, Closer>;
  using Reply = std::unique_ptr<redisReply, Closer>;
  using Arguments = std::span<const std::span<const std::byte>>;

  Reply ask(Arguments arguments, Clock::time_point deadline);
  Connection connect(Clock::time_point deadline) const;
  Connection take_idle();
  static Reply command(redisContext& context, Arguments arguments, Clock::time_point deadline);
  bool left_alone();
  void succeeded(Connection connection);
  void failed(const std::string& reason);

  const RedisNodeOptions options_;
  std::mutex mutex_;
  std::vector<Connection> idle_;
  int failures_in_a_row_ = 0;
  Clock::time_point retry_at_{};
  std::atomic<uint64_t> failures_{0};
};

}  // namespace scd
