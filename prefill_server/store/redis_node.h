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
#include "prefill_server/store/redis_reply_guard.h"

struct redisContext;
struct redisReply;

namespace scd {

// "redis://host:port", "redis://host:port/database" or "unix:/path/of/socket". Throws Error INVALID_ARGUMENT naming
// `key`.
struct RedisAddress {
  std::string text;
  std::string host{};    // empty: a socket
  std::string socket{};  // path
  int port = 6379;
  int database = 0;
};
RedisAddress parse_redis_address(const std::string& key, const std::string& text);

struct RedisNodeOptions {
  RedisAddress address;
  std::string password;  // empty: none
  std::chrono::milliseconds timeout{50};
  std::chrono::milliseconds retry_after{5000};
  size_t most_value_bytes = size_t{256} << 20;  // a longer answer is a failure
};

struct RedisAnswer {
  enum class Kind : uint8_t { kNone, kMissing, kValue, kDone, kError };
  Kind kind = Kind::kNone;  // kNone: the server failed or is left alone
  ByteBuffer value{};       // with kValue
  std::string error{};      // with kError: what the server said
};

// A cluster's slots [first, last] are at this server.
struct RedisSlots {
  uint16_t first = 0;
  uint16_t last = 0;
  std::string host;  // empty: the host that was asked
  int port = 0;
};

// Thread-safe; a connection serves one call at a time, and there are as many as calls at once.
class RedisNode {
 public:
  using Clock = std::chrono::steady_clock;
  explicit RedisNode(RedisNodeOptions options);
  ~RedisNode();
  RedisNode(const RedisNode&) = delete;
  RedisNode& operator=(const RedisNode&) = delete;

  // GETs, sent together: an answer for each key. asking: of slots that a cluster is moving here.
  std::vector<RedisAnswer> get(std::span<const std::string> keys, bool asking, Clock::time_point deadline);
  // SET with an expiry, within the options' timeout.
  RedisAnswer set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires, bool asking);
  // CLUSTER SLOTS. Nothing where there is no answer, or none that makes sense.
  std::optional<std::vector<RedisSlots>> cluster_slots(Clock::time_point deadline);

  const RedisAddress& address() const { return options_.address; }
  uint64_t failures() const { return failures_.load(std::memory_order_relaxed); }

 private:
  struct Closer {
    void operator()(redisContext* context) const;
    void operator()(redisReply* reply) const;
  };
  using Connection = std::unique_ptr<redisContext, Closer>;
  using Reply = std::unique_ptr<redisReply, Closer>;
  using Command = std::vector<std::span<const std::byte>>;

  std::vector<Reply> ask(std::span<const Command> commands, const RedisReplyLimits& limits, Clock::time_point deadline);
  Connection connect(Clock::time_point deadline) const;
  Connection take_idle();
  static std::vector<Reply> exchange(redisContext& context, std::span<const Command> commands,
                                     const RedisReplyLimits& limits, Clock::time_point deadline);
  static RedisAnswer answer_of(const redisReply& reply);
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
