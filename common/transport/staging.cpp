#include "common/transport/staging.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/base/crc32c.h"

namespace scd {
namespace {

// Enough closed leases to tell a late message from a foreign one.
constexpr size_t kRememberedLeases = 4096;

size_t round_up_to_page(size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

// Takes the same time wherever the first difference lies.
bool tokens_equal(const TransferToken& a, const TransferToken& b) {
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

std::string name_of(LeaseKey key) {
  return "request " + std::to_string(key.request_id) + " generation " + std::to_string(key.generation);
}

}  // namespace

class StagingState : public std::enable_shared_from_this<StagingState> {
 public:
  StagingState(size_t slot_bytes, size_t slots);
  StagingState(const StagingState&) = delete;
  StagingState& operator=(const StagingState&) = delete;
  ~StagingState() { munmap(memory_.data(), memory_.size()); }

  Result<Lease> open_lease(LeaseRequest request);
  void close_lease(LeaseKey key);
  RejectReason admit(std::span<const std::byte> header, uint64_t payload_bytes, Landing& landing);
  bool is_authentic(const MessageHeader& header) const;
  bool is_live(LeaseKey key) const;
  void deliver(Landing landing);
  void fail_lease(LeaseKey key, const Failure& failure);
  void release_slot(size_t index, LeaseKey key);

  size_t slot_bytes() const { return slot_bytes_; }
  std::span<std::byte> memory() const { return memory_; }
  std::span<std::byte> slot(size_t index) const { return memory_.subspan(index * stride_, slot_bytes_); }
  StagingCounters counters() const;

 private:
  // Shared: a callback may run while its lease is being closed from within it.
  using Callbacks = std::shared_ptr<const LeaseRequest>;

  struct LeaseRecord {
    Callbacks request;
    size_t slots_in_use = 0;
    bool dead = false;    // a later generation took its place
    bool failed = false;  // on_failure has been called
    std::vector<std::thread::id> callers;
  };

  RejectReason find_slot(const MessageHeader& header, StagingSlot& slot);
  void retire(LeaseRecord& record);
  // Runs call(request) with the record marked busy; the mutex is not held meanwhile.
  template <class Call>
  void call_out(std::unique_lock<std::mutex>& lock, LeaseKey key, LeaseRecord& record, Call call);

  const size_t slot_bytes_;
  const size_t stride_;
  std::span<std::byte> memory_;

  mutable std::mutex mutex_;
  std::condition_variable call_ended_;
  std::vector<size_t> free_;
  std::map<LeaseKey, LeaseRecord> leases_;
  std::map<LeaseKey, TransferToken> closed_;
  std::deque<LeaseKey> closed_order_;
  size_t orphaned_slots_ = 0;  // in use, but of no live lease
  StagingCounters counters_;
};

StagingState::StagingState(size_t slot_bytes, size_t slots)
    : slot_bytes_(slot_bytes), stride_(round_up_to_page(slot_bytes)) {
  const size_t bytes = stride_ * slots;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(ErrorCode::kResourceExhausted, "transport: no memory for " + std::to_string(slots) + " slots of " +
                                                   std::to_string(slot_bytes) + " bytes");
  }
  madvise(memory, bytes, MADV_HUGEPAGE);  // only a hint: fewer page faults while payloads land
  memory_ = std::span(static_cast<std::byte*>(memory), bytes);
  for (size_t i = slots; i-- > 0;) free_.push_back(i);
  counters_.slots = slots;
}

Result<Lease> StagingState::open_lease(LeaseRequest request) {
  if (request.slots == 0 || !request.on_message || !request.on_failure) {
    return Failure{ErrorCode::kInvalidArgument, "lease of " + name_of(request.key) + " needs slots and callbacks"};
  }
  std::scoped_lock lock(mutex_);
  const LeaseKey key = request.key;
  const auto last = leases_.lower_bound({key.request_id + 1, 0});
  if (last != leases_.begin()) {
    const LeaseKey live = std::prev(last)->first;
    if (live.request_id == key.request_id && live.generation >= key.generation) {
      return Failure{ErrorCode::kAlreadyExists,
                     "lease of " + name_of(live) + " is open; a new one needs a later generation"};
    }
  }
  const size_t taken = counters_.slots_reserved + orphaned_slots_;
  if (taken + request.slots > counters_.slots) {
    return Failure{ErrorCode::kResourceExhausted, "lease of " + name_of(key) + " asks for " +
                                                      std::to_string(request.slots) + " staging slots; " +
                                                      std::to_string(counters_.slots - taken) + " of " +
                                                      std::to_string(counters_.slots) + " are left"};
  }
  for (auto it = leases_.lower_bound({key.request_id, 0});
       it != leases_.end() && it->first.request_id == key.request_id; ++it) {
    if (!it->second.dead && !request.beside_earlier) retire(it->second);
  }
  counters_.slots_reserved += request.slots;
  counters_.live_leases += 1;
  leases_[key].request = std::make_shared<const LeaseRequest>(std::move(request));
  return Lease(shared_from_this(), key);
}

void StagingState::retire(LeaseRecord& record) {
  record.dead = true;
  counters_.slots_reserved -= record.request->slots;
  counters_.live_leases -= 1;
  orphaned_slots_ += record.slots_in_use;
}

void StagingState::close_lease(LeaseKey key) {
  std::unique_lock lock(mutex_);
  const auto it = leases_.find(key);
  SCD_CHECK(it != leases_.end(), "a lease is closed once");
  if (!it->second.dead) retire(it->second);
  call_ended_.wait(lock, [&] {
    return std::ranges::all_of(it->second.callers, [](std::thread::id id) { return id == std::this_thread::get_id(); });
  });
  closed_[key] = it->second.request->token;
  closed_order_.push_back(key);
  if (closed_order_.size() > kRememberedLeases) {
    closed_.erase(closed_order_.front());
    closed_order_.pop_front();
  }
  const Callbacks keep = it->second.request;  // its captures may lock this pool when they are destroyed
  leases_.erase(it);
  lock.unlock();
}

RejectReason StagingState::admit(std::span<const std::byte> header, uint64_t payload_bytes, Landing& landing) {
  RejectReason reason = read_header(header, slot_bytes_, landing.header);
  if (reason == RejectReason::kNone && landing.header.payload_bytes != payload_bytes) {
    reason = RejectReason::kPayloadSizeMismatch;
  }
  std::scoped_lock lock(mutex_);
  if (reason == RejectReason::kNone) reason = find_slot(landing.header, landing.slot);
  landing.announced_at = ReceivedMessage::Clock::now();
  counters_.rejected[static_cast<size_t>(reason)] += reason == RejectReason::kNone ? 0 : 1;
  counters_.late_messages_dropped += reason == RejectReason::kDeadGeneration ? 1 : 0;
  return reason;
}

RejectReason StagingState::find_slot(const MessageHeader& header, StagingSlot& slot) {
  const LeaseKey key{header.request_id, header.generation};
  const auto it = leases_.find(key);
  if (it == leases_.end()) {
    const auto closed = closed_.find(key);
    if (closed == closed_.end()) return RejectReason::kUnknownLease;
    return tokens_equal(closed->second, header.token) ? RejectReason::kDeadGeneration : RejectReason::kWrongToken;
  }
  LeaseRecord& record = it->second;
  if (!tokens_equal(record.request->token, header.token)) return RejectReason::kWrongToken;
  if (record.dead || record.failed) return RejectReason::kDeadGeneration;
  if (record.slots_in_use >= record.request->slots) return RejectReason::kNoCredit;
  SCD_CHECK(!free_.empty(), "reserved slots are free slots");
  ++record.slots_in_use;
  slot = StagingSlot(shared_from_this(), free_.back(), key);
  free_.pop_back();
  return RejectReason::kNone;
}

bool StagingState::is_authentic(const MessageHeader& header) const {
  const LeaseKey key{header.request_id, header.generation};
  std::scoped_lock lock(mutex_);
  if (const auto it = leases_.find(key); it != leases_.end()) {
    return tokens_equal(it->second.request->token, header.token);
  }
  const auto closed = closed_.find(key);
  return closed != closed_.end() && tokens_equal(closed->second, header.token);
}

bool StagingState::is_live(LeaseKey key) const {
  std::scoped_lock lock(mutex_);
  const auto it = leases_.find(key);
  return it != leases_.end() && !it->second.dead && !it->second.failed;
}

template <class Call>
void StagingState::call_out(std::unique_lock<std::mutex>& lock, LeaseKey key, LeaseRecord& record, Call call) {
  const auto self = std::this_thread::get_id();
  const Callbacks request = record.request;
  record.callers.push_back(self);
  lock.unlock();
  call(*request);
  lock.lock();
  // The callback may have closed its own lease: look it up again.
  if (const auto it = leases_.find(key); it != leases_.end()) {
    auto& callers = it->second.callers;
    if (const auto mine = std::ranges::find(callers, self); mine != callers.end()) callers.erase(mine);
  }
  lock.unlock();
  call_ended_.notify_all();
}

void StagingState::deliver(Landing landing) {
  const LeaseKey key{landing.header.request_id, landing.header.generation};
  ReceivedMessage message(landing.header, std::move(landing.slot), landing.announced_at);
  std::unique_lock lock(mutex_);
  const auto it = leases_.find(key);
  if (it == leases_.end() || it->second.dead || it->second.failed) {
    counters_.late_messages_dropped += 1;
    lock.unlock();  // before the message gives its slot back
    return;
  }
  counters_.messages_received += 1;
  counters_.payload_bytes_received += message.header().payload_bytes;
  call_out(lock, key, it->second, [&](const LeaseRequest& request) { request.on_message(std::move(message)); });
}

void StagingState::fail_lease(LeaseKey key, const Failure& failure) {
  std::unique_lock lock(mutex_);
  const auto it = leases_.find(key);
  if (it == leases_.end() || it->second.dead || it->second.failed) return;
  it->second.failed = true;
  call_out(lock, key, it->second, [&](const LeaseRequest& request) { request.on_failure(failure); });
}

void StagingState::release_slot(size_t index, LeaseKey key) {
  std::scoped_lock lock(mutex_);
  free_.push_back(index);
  const auto it = leases_.find(key);
  if (it != leases_.end() && !it->second.dead) {
    --it->second.slots_in_use;
  } else {
    --orphaned_slots_;
  }
}

StagingCounters StagingState::counters() const {
  std::scoped_lock lock(mutex_);
  StagingCounters counters = counters_;
  counters.slots_in_use = counters.slots - free_.size();
  counters.slots_left = counters.slots - std::min(counters.slots, counters.slots_reserved + orphaned_slots_);
  return counters;
}

Failure credit_failure(const MessageHeader& header) {
  return {ErrorCode::kResourceExhausted, "message " + std::to_string(header.sequence) + " of " +
                                             name_of({header.request_id, header.generation}) +
                                             " came without credit: all slots of the lease are in use"};
}

Failure protocol_failure(const std::string& peer, RejectReason reason) {
  return {ErrorCode::kDataLoss, "peer " + peer + " sent a message that was refused: " + std::string(to_string(reason))};
}

StagingSlot::StagingSlot(std::shared_ptr<StagingState> pool, size_t index, LeaseKey key)
    : pool_(std::move(pool)), index_(index), key_(key) {}
StagingSlot::StagingSlot(StagingSlot&& other) noexcept
    : pool_(std::move(other.pool_)), index_(other.index_), key_(other.key_) {}
StagingSlot& StagingSlot::operator=(StagingSlot&& other) noexcept {
  if (this == &other) return *this;
  release();
  pool_ = std::move(other.pool_);
  index_ = other.index_;
  key_ = other.key_;
  return *this;
}
StagingSlot::~StagingSlot() { release(); }

void StagingSlot::release() {
  if (pool_) pool_->release_slot(index_, key_);
  pool_.reset();
}

std::span<std::byte> StagingSlot::bytes() const {
  SCD_CHECK(pool_ != nullptr, "an empty slot has no bytes");
  return pool_->slot(index_);
}

ReceivedMessage::ReceivedMessage(const MessageHeader& header, StagingSlot slot, Clock::time_point announced_at)
    : header_(header), slot_(std::move(slot)), announced_at_(announced_at), received_at_(Clock::now()) {}

std::span<const std::byte> ReceivedMessage::payload() const {
  return own_.empty() ? slot_.bytes().first(header_.payload_bytes) : std::span<const std::byte>(own_);
}

ReceivedMessage ReceivedMessage::without_slot() && {
  if (own_.empty()) own_.assign(payload().begin(), payload().end());
  if (!own_.empty()) slot_ = {};
  return std::move(*this);
}

Result<Done> ReceivedMessage::verify_payload() const {
  const uint32_t crc = crc32c(payload());
  if (crc == header_.payload_crc) return Done{};
  return Failure{ErrorCode::kDataLoss, "message " + std::to_string(header_.sequence) + " of " +
                                           name_of({header_.request_id, header_.generation}) +
                                           ": the payload's CRC-32C does not match its header"};
}

Lease::Lease(std::shared_ptr<StagingState> pool, LeaseKey key) : pool_(std::move(pool)), key_(key) {}
Lease::Lease(Lease&& other) noexcept : pool_(std::move(other.pool_)), key_(other.key_) {}
Lease& Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  close();
  pool_ = std::move(other.pool_);
  key_ = other.key_;
  return *this;
}

void Lease::close() {
  if (pool_) std::exchange(pool_, nullptr)->close_lease(key_);
}

StagingPool::StagingPool(size_t slot_bytes, size_t slots) : state_(std::make_shared<StagingState>(slot_bytes, slots)) {}
Result<Lease> StagingPool::open_lease(LeaseRequest request) { return state_->open_lease(std::move(request)); }
RejectReason StagingPool::admit(std::span<const std::byte> header, uint64_t payload_bytes, Landing& landing) {
  return state_->admit(header, payload_bytes, landing);
}
bool StagingPool::is_authentic(const MessageHeader& header) const { return state_->is_authentic(header); }
bool StagingPool::is_live(LeaseKey key) const { return state_->is_live(key); }
void StagingPool::deliver(Landing landing) { state_->deliver(std::move(landing)); }
void StagingPool::fail_lease(LeaseKey key, const Failure& failure) { state_->fail_lease(key, failure); }
size_t StagingPool::slot_bytes() const { return state_->slot_bytes(); }
std::span<std::byte> StagingPool::memory() const { return state_->memory(); }
StagingCounters StagingPool::counters() const { return state_->counters(); }

}  // namespace scd
