#include "prefill_server/store/redis_cluster.h"

#include <algorithm>
#include <charconv>

#include "common/log/log.h"

namespace scd {
namespace {

constexpr size_t kMostNodes = 1024;
constexpr int kMostHops = 4;                    // of one key
constexpr std::chrono::seconds kLearnEvery{1};  // at most

using Kind = RedisAnswer::Kind;

bool parse_number(std::string_view text, int largest, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && number >= 0 && number <= largest;
}

}  // namespace

uint16_t redis_slot(std::string_view key) {
  if (const size_t open = key.find('{'); open != key.npos) {
    const size_t close = key.find('}', open + 1);
    if (close != key.npos && close > open + 1) key = key.substr(open + 1, close - open - 1);
  }
  uint16_t crc = 0;
  for (const char byte : key) {
    crc = static_cast<uint16_t>(crc ^ (static_cast<uint8_t>(byte) << 8));
    for (int bit = 0; bit < 8; ++bit) crc = static_cast<uint16_t>((crc & 0x8000) != 0 ? (crc << 1) ^ 0x1021 : crc << 1);
  }
  return crc % kRedisSlots;
}

std::optional<RedisRedirect> parse_redirect(std::string_view error) {
  RedisRedirect redirect;
  if (error.starts_with("MOVED ")) {
    error.remove_prefix(6);
  } else if (error.starts_with("ASK ")) {
    error.remove_prefix(4);
    redirect.ask = true;
  } else {
    return std::nullopt;
  }
  const size_t space = error.find(' ');
  const size_t colon = error.rfind(':');
  int slot = 0;
  const bool sound = space != error.npos && colon != error.npos && colon > space &&
                     parse_number(error.substr(0, space), kRedisSlots - 1, slot) &&
                     parse_number(error.substr(colon + 1), 65535, redirect.port) && redirect.port > 0;
  if (!sound) return std::nullopt;
  redirect.slot = static_cast<uint16_t>(slot);
  redirect.host = error.substr(space + 1, colon - space - 1);
  return redirect;
}

RedisCluster::RedisCluster(std::vector<RedisAddress> seeds, RedisNodeOptions node) : options_(std::move(node)) {
  for (RedisAddress& seed : seeds) seeds_.emplace_back(std::move(seed.host), seed.port);
}

// Null where there are too many.
RedisNode* RedisCluster::node_at(const std::string& host, int port) {
  std::scoped_lock lock(mutex_);
  const auto found = nodes_.find({host, port});
  if (found != nodes_.end()) return found->second.get();
  if (nodes_.size() >= kMostNodes) return nullptr;
  RedisNodeOptions options = options_;
  options.address = {.text = "redis://" + host + ":" + std::to_string(port), .host = host, .socket = {}, .port = port};
  return nodes_.emplace(std::pair(host, port), std::make_unique<RedisNode>(std::move(options))).first->second.get();
}

// A slot that nobody was known to have: some server may know by now, and says MOVED.
RedisCluster::Place RedisCluster::place_of(std::string_view key) {
  std::scoped_lock lock(mutex_);
  RedisNode* node = slots_[redis_slot(key)];
  if (node == nullptr) stale_.store(true, std::memory_order_release);
  return {.node = node != nullptr || nodes_.empty() ? node : nodes_.begin()->second.get()};
}

std::vector<RedisNode*> RedisCluster::known_nodes() {
  for (const auto& [host, port] : seeds_) (void)node_at(host, port);
  std::vector<RedisNode*> nodes;
  std::scoped_lock lock(mutex_);
  for (const auto& [address, node] : nodes_) nodes.push_back(node.get());
  return nodes;
}

// One caller asks the servers one after the other; others go on with what is known.
void RedisCluster::learn_slots(RedisNode::Clock::time_point deadline) {
  {
    std::scoped_lock lock(mutex_);
    const bool lately =
        learnt_at_ != RedisNode::Clock::time_point{} && RedisNode::Clock::now() < learnt_at_ + kLearnEvery;
    if (lately || !stale_.exchange(false, std::memory_order_acq_rel)) return;
    learnt_at_ = RedisNode::Clock::now();
  }
  for (RedisNode* node : known_nodes()) {
    if (const auto ranges = node->cluster_slots(deadline)) return take_slots(*ranges, *node);
    if (RedisNode::Clock::now() >= deadline) break;
  }
  stale_.store(true, std::memory_order_release);
}

void RedisCluster::take_slots(const std::vector<RedisSlots>& ranges, const RedisNode& from) {
  std::array<RedisNode*, kRedisSlots> slots{};
  for (const RedisSlots& range : ranges) {
    RedisNode* node = node_at(range.host.empty() ? from.address().host : range.host, range.port);
    std::fill(slots.begin() + range.first, slots.begin() + range.last + 1, node);
  }
  const auto covered = std::ranges::count_if(slots, [](const RedisNode* node) { return node != nullptr; });
  log_info("code_store_slots", {{"from", from.address().text}, {"covered", static_cast<int64_t>(covered)}});
  std::scoped_lock lock(mutex_);
  slots_ = slots;
}

std::optional<RedisCluster::Place> RedisCluster::redirected(const RedisAnswer& answer, const RedisNode& from) {
  if (answer.kind == Kind::kNone) stale_.store(true, std::memory_order_release);  // a replica may have taken over
  if (answer.kind != Kind::kError) return std::nullopt;
  const auto redirect = parse_redirect(answer.error);
  if (!redirect) return std::nullopt;
  RedisNode* node = node_at(redirect->host.empty() ? from.address().host : redirect->host, redirect->port);
  if (!redirect->ask && node != nullptr) {
    stale_.store(true, std::memory_order_release);
    std::scoped_lock lock(mutex_);
    slots_[redirect->slot] = node;
  }
  return Place{.node = node, .asking = redirect->ask};
}

std::vector<std::optional<ByteBuffer>> RedisCluster::get(std::span<const std::string> keys,
                                                         RedisNode::Clock::time_point deadline) {
  learn_slots(deadline);
  std::map<Place, std::vector<size_t>> wanted;
  for (size_t i = 0; i < keys.size(); ++i) wanted[place_of(keys[i])].push_back(i);
  std::vector<std::optional<ByteBuffer>> values(keys.size());
  for (int hop = 0; hop < kMostHops && !wanted.empty(); ++hop) {
    std::map<Place, std::vector<size_t>> elsewhere;
    for (const auto& [place, indices] : wanted) {
      if (place.node == nullptr) continue;
      std::vector<std::string> some;
      for (const size_t i : indices) some.push_back(keys[i]);
      std::vector<RedisAnswer> answers = place.node->get(some, place.asking, deadline);
      for (size_t k = 0; k < answers.size(); ++k) {
        if (answers[k].kind == Kind::kValue) {
          values[indices[k]] = std::move(answers[k].value);
        } else if (const auto next = redirected(answers[k], *place.node)) {
          elsewhere[*next].push_back(indices[k]);
        }
      }
    }
    wanted = std::move(elsewhere);
  }
  return values;
}

bool RedisCluster::set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires) {
  learn_slots(RedisNode::Clock::now() + options_.timeout);
  Place place = place_of(key);
  for (int hop = 0; hop < kMostHops && place.node != nullptr; ++hop) {
    const RedisAnswer answer = place.node->set(key, value, expires, place.asking);
    if (answer.kind == Kind::kDone) return true;
    const auto next = redirected(answer, *place.node);
    if (!next) return false;
    place = *next;
  }
  return false;
}

uint64_t RedisCluster::failures() const {
  std::scoped_lock lock(mutex_);
  uint64_t failures = 0;
  for (const auto& [address, node] : nodes_) failures += node->failures();
  return failures;
}

}  // namespace scd
