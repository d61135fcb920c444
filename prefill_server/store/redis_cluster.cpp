#include "prefill_server/store/redis_cluster.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <set>

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
RedisCluster::Node RedisCluster::node_at(const std::string& host, int port) {
  std::scoped_lock lock(mutex_);
  const auto found = nodes_.find({host, port});
  if (found != nodes_.end()) return found->second;
  if (nodes_.size() >= kMostNodes) return nullptr;
  RedisNodeOptions options = options_;
  options.address = {.text = "redis://" + host + ":" + std::to_string(port), .host = host, .socket = {}, .port = port};
  return nodes_.emplace(std::pair(host, port), std::make_shared<RedisNode>(std::move(options))).first->second;
}

// A slot that nobody was known to have: some server may know by now, and says MOVED. They take turns, for one may be
// down.
RedisCluster::Place RedisCluster::place_of(std::string_view key) {
  std::scoped_lock lock(mutex_);
  const Node& node = slots_[redis_slot(key)];
  if (node != nullptr) return {.node = node};
  stale_.store(true, std::memory_order_release);
  if (nodes_.empty()) return {};
  return {.node = std::next(nodes_.begin(), static_cast<int64_t>(next_unknown_++ % nodes_.size()))->second};
}

// The seeds first.
std::vector<RedisCluster::Node> RedisCluster::known_nodes() {
  std::vector<Node> nodes;
  for (const auto& [host, port] : seeds_) nodes.push_back(node_at(host, port));
  std::erase(nodes, nullptr);
  std::scoped_lock lock(mutex_);
  for (const auto& [address, node] : nodes_) {
    if (std::ranges::find(seeds_, address) == seeds_.end()) nodes.push_back(node);
  }
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
  for (const Node& node : known_nodes()) {
    const auto ranges = node->cluster_slots(deadline);
    if (ranges && take_slots(*ranges, *node)) return;
    if (RedisNode::Clock::now() >= deadline) break;
  }
  stale_.store(true, std::memory_order_release);
}

// False where the server knows of nothing, or of less than is known here: it has just started, or was removed.
bool RedisCluster::take_slots(const std::vector<RedisSlots>& ranges, const RedisNode& from) {
  std::array<Node, kRedisSlots> slots{};
  for (const RedisSlots& range : ranges) {
    const Node node = node_at(range.host.empty() ? from.address().host : range.host, range.port);
    std::fill(slots.begin() + range.first, slots.begin() + range.last + 1, node);
  }
  const auto covered = kRedisSlots - std::ranges::count(slots, nullptr);
  std::scoped_lock lock(mutex_);
  const bool takes = covered > 0 && covered >= kRedisSlots - std::ranges::count(slots_, nullptr);
  if (takes) slots_ = std::move(slots);
  forget_others();
  log_info("code_store_slots",
           {{"from", from.address().text}, {"covered", static_cast<int64_t>(covered)}, {"taken", takes}});
  return takes;
}

// Servers come and go, and each has connections.
void RedisCluster::forget_others() {
  const std::set<Node> used(slots_.begin(), slots_.end());
  std::erase_if(nodes_, [&](const auto& entry) {
    const auto& [address, node] = entry;
    const bool kept = used.contains(node) || std::ranges::find(seeds_, address) != seeds_.end();
    if (!kept) failures_of_others_ += node->failures();
    return !kept;
  });
}

std::optional<RedisCluster::Place> RedisCluster::redirected(const RedisAnswer& answer, const RedisNode& from) {
  if (answer.kind == Kind::kNone) stale_.store(true, std::memory_order_release);  // a replica may have taken over
  if (answer.kind != Kind::kError) return std::nullopt;
  const auto redirect = parse_redirect(answer.error);
  if (!redirect) return std::nullopt;
  const Node node = node_at(redirect->host.empty() ? from.address().host : redirect->host, redirect->port);
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
  uint64_t failures = failures_of_others_;
  for (const auto& [address, node] : nodes_) failures += node->failures();
  return failures;
}

}  // namespace scd
