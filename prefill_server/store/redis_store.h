// The shared store in Redis or Valkey: chunks to values and back, written behind everybody's back.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/threads/bounded_queue.h"
#include "prefill_server/store/code_store.h"
#include "prefill_server/store/redis_servers.h"

namespace scd {

struct RedisOptions {
  std::vector<std::string> servers;  // RedisAddress; none: no shared store
  bool cluster = false;              // they are some of a Redis Cluster's
  std::filesystem::path password_file;
  std::chrono::milliseconds expire_after{86'400'000};
  std::chrono::milliseconds timeout{50};
  std::chrono::milliseconds retry_after{5000};
  size_t most_chunk_bytes = size_t{256} << 20;  // not configured: what the model's chunks can be
};

class RedisStore final : public CodeStore {
 public:
  // Throws Error INVALID_ARGUMENT for an address or a password file that cannot be read. Servers that do not answer are
  // no error.
  explicit RedisStore(const RedisOptions& options);
  ~RedisStore() override;

  std::vector<Chunk> fetch(std::span<const Sha256Digest> names) override;
  void keep(const Sha256Digest& name, Chunk chunk) override;
  CodeStoreCounters counters() const override;
  // Waits until everything kept before is written or dropped.
  void flush();

 private:
  bool fetch_some(std::span<const Sha256Digest> names, RedisNode::Clock::time_point deadline,
                  std::vector<Chunk>& chunks);
  void write();

  const RedisOptions options_;
  const std::unique_ptr<RedisServers> servers_;
  BoundedQueue<std::pair<Sha256Digest, Chunk>> waiting_;
  std::atomic<uint64_t> waiting_bytes_{0};
  std::atomic<int> fetching_{0};
  std::atomic<uint64_t> hits_{0}, misses_{0}, written_{0}, dropped_{0}, unsound_{0}, kept_{0};
  std::jthread writer_;
};

}  // namespace scd
