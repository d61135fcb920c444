#include "prefill_server/store/redis_node.h"

#include <hiredis/hiredis.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "common/base/error.h"
#include "common/log/log.h"

namespace scd {
namespace {

constexpr int kFailuresUntilLeftAlone = 3;
constexpr size_t kMostIdle = 8;

bool parse_number(std::string_view text, int largest, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && number >= 0 && number <= largest;
}

constexpr size_t kMostReplyBytes = size_t{1} << 30;  // of commands that are sent together
constexpr size_t kMostSlotRanges = 16384;
constexpr RedisReplyLimits kTextLimits{.value_bytes = 1 << 12, .all_bytes = 1 << 16};
// Of each range and of each of its servers some numbers and texts.
constexpr RedisReplyLimits kSlotsLimits{
    .value_bytes = 1 << 12, .all_bytes = size_t{16} << 20, .elements = 32 * kMostSlotRanges};

void set_error(redisContext& context, std::string_view what) {
  context.err = REDIS_ERR_OTHER;
  const size_t length = std::min(what.size(), sizeof context.errstr - 1);
  std::copy_n(what.data(), length, context.errstr);
  context.errstr[length] = '\0';
}

timeval timeval_until(RedisNode::Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(deadline - RedisNode::Clock::now()).count();
  const int64_t microseconds = std::max<int64_t>(left, 1000);
  return {.tv_sec = microseconds / 1'000'000, .tv_usec = microseconds % 1'000'000};
}

// What has arrived goes to hiredis where it may.
bool read_some(redisContext& context, RedisReplyGuard& guard) {
  std::array<char, 1 << 14> bytes;
  ssize_t count = -1;
  do {
    count = ::recv(context.fd, bytes.data(), bytes.size(), 0);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) {
    set_error(context, count == 0 ? "the server closed the connection" : std::strerror(errno));
    return false;
  }
  const auto some = std::span(bytes).first(static_cast<size_t>(count));
  if (const auto sound = guard.take(some); !sound) {
    set_error(context, sound.failure().message);
    return false;
  }
  if (redisReaderFeed(context.reader, some.data(), some.size()) == REDIS_OK) return true;
  set_error(context, context.reader->errstr);
  return false;
}

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

bool is_number(const redisReply& reply, int64_t lowest, int64_t highest) {
  return reply.type == REDIS_REPLY_INTEGER && reply.integer >= lowest && reply.integer <= highest;
}

// [first, last, [host, port, ...], replicas...]
std::optional<RedisSlots> slots_of(const redisReply& range) {
  constexpr int64_t kLastSlot = 16383;
  if (range.type != REDIS_REPLY_ARRAY || range.elements < 3) return std::nullopt;
  const redisReply& server = *range.element[2];
  const bool sound = is_number(*range.element[0], 0, kLastSlot) && is_number(*range.element[1], 0, kLastSlot) &&
                     range.element[0]->integer <= range.element[1]->integer && server.type == REDIS_REPLY_ARRAY &&
                     server.elements >= 2 && is_number(*server.element[1], 1, 65535);
  if (!sound) return std::nullopt;
  RedisSlots slots{.first = static_cast<uint16_t>(range.element[0]->integer),
                   .last = static_cast<uint16_t>(range.element[1]->integer),
                   .host = {},
                   .port = static_cast<int>(server.element[1]->integer)};
  if (server.element[0]->type == REDIS_REPLY_STRING) slots.host = {server.element[0]->str, server.element[0]->len};
  return slots;
}

}  // namespace

RedisAddress parse_redis_address(const std::string& key, const std::string& text) {
  const auto refuse = [&](const std::string& what) -> RedisAddress {
    throw Error(ErrorCode::kInvalidArgument, key + ": '" + text + "': " + what +
                                                 "; expected redis://host:port, redis://host:port/database or "
                                                 "unix:/path/of/socket");
  };
  RedisAddress address{.text = text};
  constexpr std::string_view kUnix = "unix:", kRedis = "redis://";
  if (text.starts_with(kUnix)) {
    address.socket = text.substr(kUnix.size());
    return address.socket.empty() ? refuse("no path") : address;
  }
  if (!text.starts_with(kRedis)) return refuse("an unknown scheme");
  std::string_view rest = std::string_view(text).substr(kRedis.size());
  if (const size_t slash = rest.find('/'); slash != rest.npos) {
    if (!parse_number(rest.substr(slash + 1), 1 << 20, address.database)) return refuse("the database is no number");
    rest = rest.substr(0, slash);
  }
  if (rest.find('@') != rest.npos) return refuse("a password belongs into code_cache.redis.password_file");
  const size_t colon = rest.rfind(':');
  if (colon == rest.npos || !parse_number(rest.substr(colon + 1), 65535, address.port)) return refuse("no port");
  address.host = rest.substr(0, colon);
  if (address.host.starts_with('[') && address.host.ends_with(']')) {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  return address.host.empty() ? refuse("no host") : address;
}

void RedisNode::Closer::operator()(redisContext* context) const { redisFree(context); }
void RedisNode::Closer::operator()(redisReply* reply) const { freeReplyObject(reply); }

RedisNode::RedisNode(RedisNodeOptions options) : options_(std::move(options)) {}
RedisNode::~RedisNode() = default;

RedisAnswer RedisNode::answer_of(const redisReply& reply) {
  using Kind = RedisAnswer::Kind;
  switch (reply.type) {
    case REDIS_REPLY_STRING: {
      const auto bytes = bytes_of({reply.str, reply.len});
      return {.kind = Kind::kValue, .value = {bytes.begin(), bytes.end()}};
    }
    case REDIS_REPLY_STATUS: return {.kind = Kind::kDone};
    case REDIS_REPLY_ERROR: return {.kind = Kind::kError, .error = {reply.str, reply.len}};
    default: return {.kind = Kind::kMissing};
  }
}

std::vector<RedisAnswer> RedisNode::get(std::span<const std::string> keys, bool asking, Clock::time_point deadline) {
  std::vector<Command> commands;
  for (const std::string& key : keys) {
    if (asking) commands.push_back({bytes_of("ASKING")});
    commands.push_back({bytes_of("GET"), bytes_of(key)});
  }
  std::vector<RedisAnswer> answers(keys.size());
  const RedisReplyLimits limits{
      .value_bytes = options_.most_value_bytes,
      .all_bytes = std::min(kMostReplyBytes, keys.size() * (options_.most_value_bytes + kTextLimits.value_bytes))};
  const std::vector<Reply> replies = ask(commands, limits, deadline);
  if (replies.empty()) return answers;
  const size_t each = asking ? 2 : 1;
  for (size_t i = 0; i < keys.size(); ++i) answers[i] = answer_of(*replies[each * i + each - 1]);
  return answers;
}

RedisAnswer RedisNode::set(const std::string& key, std::span<const std::byte> value, std::chrono::seconds expires,
                           bool asking) {
  const std::string seconds = std::to_string(expires.count());
  std::vector<Command> commands;
  if (asking) commands.push_back({bytes_of("ASKING")});
  commands.push_back({bytes_of("SET"), bytes_of(key), value, bytes_of("EX"), bytes_of(seconds)});
  const std::vector<Reply> replies = ask(commands, kTextLimits, Clock::now() + options_.timeout);
  return replies.empty() ? RedisAnswer{} : answer_of(*replies.back());
}

std::optional<std::vector<RedisSlots>> RedisNode::cluster_slots(Clock::time_point deadline) {
  const Command command{bytes_of("CLUSTER"), bytes_of("SLOTS")};
  const std::vector<Reply> replies = ask({&command, 1}, kSlotsLimits, deadline);
  const bool sound = !replies.empty() && replies.front()->type == REDIS_REPLY_ARRAY;
  if (!sound || replies.front()->elements > kMostSlotRanges) return std::nullopt;
  std::vector<RedisSlots> ranges;
  for (size_t i = 0; i < replies.front()->elements; ++i) {
    auto range = slots_of(*replies.front()->element[i]);
    if (!range) return std::nullopt;
    ranges.push_back(std::move(*range));
  }
  return ranges;
}

// As many as commands, or none: no answer in time, or the server is left alone. An error is an answer: a server that is
// full still reads.
std::vector<RedisNode::Reply> RedisNode::ask(std::span<const Command> commands, const RedisReplyLimits& limits,
                                             Clock::time_point deadline) {
  if (left_alone()) return {};
  // A connection that lay idle may have been closed by the other side: then a new one is tried at once.
  if (Connection idle = take_idle()) {
    std::vector<Reply> replies = exchange(*idle, commands, limits, deadline);
    if (!replies.empty()) {
      succeeded(std::move(idle));
      return replies;
    }
  }
  Connection fresh = connect(deadline);
  if (fresh == nullptr || fresh->err != 0) {
    failed(fresh == nullptr ? "no memory" : fresh->errstr);
    return {};
  }
  std::vector<Reply> replies = exchange(*fresh, commands, limits, deadline);
  if (replies.empty()) {
    failed(fresh->errstr);
    return {};
  }
  succeeded(std::move(fresh));
  return replies;
}

RedisNode::Connection RedisNode::connect(Clock::time_point deadline) const {
  const RedisAddress& address = options_.address;
  const timeval limit = timeval_until(deadline);
  Connection made(address.host.empty() ? redisConnectUnixWithTimeout(address.socket.c_str(), limit)
                                       : redisConnectWithTimeout(address.host.c_str(), address.port, limit));
  if (made == nullptr || made->err != 0) return made;
  const auto say = [&](const Command& words) {
    const std::vector<Reply> replies = exchange(*made, {&words, 1}, kTextLimits, deadline);
    if (replies.empty()) return false;
    const redisReply& reply = *replies.front();
    if (reply.type == REDIS_REPLY_ERROR) set_error(*made, {reply.str, reply.len});
    return reply.type != REDIS_REPLY_ERROR;
  };
  if (!options_.password.empty() && !say({bytes_of("AUTH"), bytes_of(options_.password)})) return made;
  const std::string database = std::to_string(address.database);
  if (address.database != 0) say({bytes_of("SELECT"), bytes_of(database)});
  return made;
}

// hiredis' own limits are of each read: here they are of all answers together. None: late, too long, or the connection
// broke.
std::vector<RedisNode::Reply> RedisNode::exchange(redisContext& context, std::span<const Command> commands,
                                                  const RedisReplyLimits& limits, Clock::time_point deadline) {
  for (const Command& command : commands) {
    std::vector<const char*> starts;
    std::vector<size_t> lengths;
    for (const auto& word : command) {
      starts.push_back(reinterpret_cast<const char*>(word.data()));
      lengths.push_back(word.size());
    }
    if (redisAppendCommandArgv(&context, static_cast<int>(starts.size()), starts.data(), lengths.data()) != REDIS_OK) {
      return {};
    }
  }
  const auto in_time = [&] {
    if (Clock::now() < deadline) return redisSetTimeout(&context, timeval_until(deadline)) == REDIS_OK;
    set_error(context, "no answer in time");
    return false;
  };
  for (int written = 0; written == 0;) {
    if (!in_time() || redisBufferWrite(&context, &written) != REDIS_OK) return {};
  }
  RedisReplyGuard guard(limits);
  std::vector<Reply> replies;
  while (replies.size() < commands.size()) {
    void* reply = nullptr;
    if (redisGetReplyFromReader(&context, &reply) != REDIS_OK) return {};
    if (reply != nullptr) {
      replies.emplace_back(static_cast<redisReply*>(reply));
      continue;
    }
    if (!in_time() || !read_some(context, guard)) return {};
  }
  return replies;
}

RedisNode::Connection RedisNode::take_idle() {
  const std::scoped_lock lock(mutex_);
  if (idle_.empty()) return nullptr;
  Connection last = std::move(idle_.back());
  idle_.pop_back();
  return last;
}

bool RedisNode::left_alone() {
  const std::scoped_lock lock(mutex_);
  if (failures_in_a_row_ < kFailuresUntilLeftAlone) return false;
  if (Clock::now() < retry_at_) return true;
  retry_at_ = Clock::now() + options_.retry_after;  // one call tries
  return false;
}

void RedisNode::succeeded(Connection connection) {
  const std::scoped_lock lock(mutex_);
  if (failures_in_a_row_ >= kFailuresUntilLeftAlone) {
    log_info("code_store_back", {{"address", options_.address.text}});
  }
  failures_in_a_row_ = 0;
  if (idle_.size() < kMostIdle) idle_.push_back(std::move(connection));
}

void RedisNode::failed(const std::string& reason) {
  failures_.fetch_add(1, std::memory_order_relaxed);
  const std::scoped_lock lock(mutex_);
  idle_.clear();
  retry_at_ = Clock::now() + options_.retry_after;
  if (++failures_in_a_row_ == kFailuresUntilLeftAlone) {
    log_warning("code_store_left_alone", {{"address", options_.address.text},
                                          {"reason", reason},
                                          {"retry_ms", static_cast<int64_t>(options_.retry_after.count())}});
  }
}

}  // namespace scd
