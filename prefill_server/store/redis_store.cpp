#include "prefill_server/store/redis_store.h"

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <new>
#include <optional>
#include <thread>

#include "common/base/error.h"
#include "prefill_server/store/redis_cluster.h"
#include "prefill_server/store/stored_chunk_format.h"

namespace scd {
namespace {

constexpr size_t kMostWaiting = 1024;  // chunks to be written
constexpr uint64_t kMostWaitingBytes = uint64_t{256} << 20;
constexpr int kMostFetching = 4;          // requests that wait at once: others must have threads left
constexpr size_t kChunksOfARequest = 32;  // so that a long prompt's first chunks do not wait for its last

std::string key_of(const Sha256Digest& name) { return "scd:code:" + to_hex(name); }

std::string read_password(const std::filesystem::path& file) {
  if (file.empty()) return {};
  std::ifstream in(file);
  std::string line;
  if (!in || !std::getline(in, line) || line.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "code_cache.redis.password_file: " + file.string() + " has no first line with a password");
  }
  return line;
}

std::unique_ptr<RedisServers> make_servers(const RedisOptions& options) {
  const RedisNodeOptions common{.address = {},
                                .password = read_password(options.password_file),
                                .timeout = options.timeout,
                                .retry_after = options.retry_after,
                                .most_value_bytes = options.most_chunk_bytes};
  std::vector<RedisAddress> addresses;
  for (const std::string& server : options.servers) {
    addresses.push_back(parse_redis_address("code_cache.redis.servers", server));
  }
  if (options.cluster) return std::make_unique<RedisCluster>(std::move(addresses), common);
  std::vector<RedisNodeOptions> nodes(addresses.size(), common);
  for (size_t i = 0; i < nodes.size(); ++i) nodes[i].address = std::move(addresses[i]);
  return std::make_unique<RedisList>(std::move(nodes));
}

}  // namespace

RedisStore::RedisStore(const RedisOptions& options)
    : options_(options), servers_(make_servers(options)), waiting_(kMostWaiting) {
  std::signal(SIGPIPE, SIG_IGN);  // hiredis writes to connections that may be closed
  writer_ = std::jthread([this] {
    pthread_setname_np(pthread_self(), "code store");
    write();
  });
}

RedisStore::~RedisStore() { waiting_.close(); }

std::vector<CodeStore::Chunk> RedisStore::fetch(std::span<const Sha256Digest> names) {
  std::vector<Chunk> chunks;
  const auto deadline = RedisNode::Clock::now() + options_.timeout;
  const bool may = fetching_.fetch_add(1, std::memory_order_relaxed) < kMostFetching;
  try {
    while (may && !names.empty()) {
      const auto some = names.first(std::min(kChunksOfARequest, names.size()));
      if (!fetch_some(some, deadline, chunks) || RedisNode::Clock::now() >= deadline) break;
      names = names.subspan(some.size());
    }
  } catch (const std::bad_alloc&) {  // what is here will do
  }
  fetching_.fetch_sub(1, std::memory_order_relaxed);
  hits_.fetch_add(chunks.size(), std::memory_order_relaxed);
  return chunks;
}

// False where one is missing.
bool RedisStore::fetch_some(std::span<const Sha256Digest> names, RedisNode::Clock::time_point deadline,
                            std::vector<Chunk>& chunks) {
  std::vector<std::string> keys;
  for (const Sha256Digest& name : names) keys.push_back(key_of(name));
  const std::vector<std::optional<ByteBuffer>> values = servers_->get(keys, deadline);
  for (size_t i = 0; i < names.size(); ++i) {
    if (values[i]) {
      auto chunk = read_stored_chunk(names[i], *values[i]);
      if (chunk) {
        chunks.push_back(std::move(chunk).value());
        continue;
      }
      unsound_.fetch_add(1, std::memory_order_relaxed);
    }
    misses_.fetch_add(names.size() - i, std::memory_order_relaxed);
    return false;
  }
  return true;
}

void RedisStore::keep(const Sha256Digest& name, Chunk chunk) {
  kept_.fetch_add(1, std::memory_order_relaxed);
  const uint64_t bytes = chunk->bytes();
  const bool room = waiting_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= kMostWaitingBytes;
  if (room && waiting_.try_push({name, std::move(chunk)})) return;
  waiting_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  dropped_.fetch_add(1, std::memory_order_relaxed);
}

void RedisStore::write() {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options_.expire_after);
  while (auto next = waiting_.pop()) {
    const auto& [name, chunk] = *next;
    bool done = false;
    try {
      done = !waiting_.closed() &&
             servers_->set(key_of(name), stored_chunk_bytes(name, *chunk), std::max(seconds, std::chrono::seconds(1)));
    } catch (const std::bad_alloc&) {  // then it is not kept
    }
    waiting_bytes_.fetch_sub(chunk->bytes(), std::memory_order_relaxed);
    (done ? written_ : dropped_).fetch_add(1, std::memory_order_relaxed);
  }
}

void RedisStore::flush() {
  while (written_.load(std::memory_order_relaxed) + dropped_.load(std::memory_order_relaxed) <
         kept_.load(std::memory_order_relaxed)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

CodeStoreCounters RedisStore::counters() const {
  return {.hits = hits_.load(std::memory_order_relaxed),
          .misses = misses_.load(std::memory_order_relaxed),
          .written = written_.load(std::memory_order_relaxed),
          .dropped = dropped_.load(std::memory_order_relaxed),
          .failures = servers_->failures(),
          .unsound = unsound_.load(std::memory_order_relaxed)};
}

}  // namespace scd
