#include "tests/cuda_on_cpu/block.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/cuda_on_cpu/fiber.h"
#include "tests/cuda_on_cpu/launch.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace scd::cuda_on_cpu {
namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024, kMaxGridYZ = 65535;
constexpr size_t kSharedBytes = size_t{163} << 10;  // of a block of compute capability 8.0

[[noreturn]] void fail(const char* message) {
  std::fprintf(stderr, "CUDA on the CPU: %s, block (%u, %u, %u), thread (%u, %u, %u)\n", message, blockIdx.x,
               blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  std::abort();
}

// Runs threads of the block, each to its end, until one waits; then it belongs to that one.
struct Runner {
  explicit Runner(void (*body)()) : fiber(body) {}
  Fiber fiber;
  Runner* next = nullptr;  // in the queue it stands in
  unsigned thread = 0;
  uint3 index{};
  const char* waits_at = nullptr;
};

class Queue {
 public:
  void push(Runner* runner) {
    runner->next = nullptr;
    (first_ == nullptr ? first_ : last_->next) = runner;
    last_ = runner;
  }
  Runner* pop() {
    Runner* const runner = first_;
    if (runner != nullptr) first_ = runner->next;
    return runner;
  }
  void append(Queue& others) {
    if (others.first_ == nullptr) return;
    (first_ == nullptr ? first_ : last_->next) = others.first_;
    last_ = others.last_;
    others.first_ = nullptr;
  }
  bool empty() const { return first_ == nullptr; }

 private:
  Runner* first_ = nullptr;
  Runner* last_ = nullptr;
};

// Lanes that are at the same meeting, some still to come.
struct Gathering {
  const Meeting* meeting;
  uint32_t mask, here;
};

struct Warp {
  uint32_t alive = 0;
  unsigned gatherings = 0;
  std::array<Gathering, kWarp> gathering{};
  std::array<void*, kWarp> records{};
  std::array<Runner*, kWarp> runners{};
};

// The block that runs, and what blocks leave for the next.
struct Block {
  void (*run)(const void*) = nullptr;
  const void* call = nullptr;
  unsigned threads = 0, begun = 0, alive = 0;
  uint3 next_index{};
  std::array<Warp, kMaxThreads / kWarp> warps;
  unsigned at_barrier = 0;
  Queue waiting_at_barrier, ready, idle;
  Runner* running = nullptr;
  Fiber host;
  std::vector<std::unique_ptr<Runner>> runners;
  uint64_t count = 0;
  size_t dynamic_bytes = 0, shared_bytes = 0;
  alignas(4096) std::array<std::byte, kSharedBytes> shared;
};

Block block;

// A runner for what can go on; null: nothing can.
Runner* next_runner() {
  if (Runner* const ready = block.ready.pop()) return ready;
  if (block.begun == block.threads) return nullptr;
  if (Runner* const idle = block.idle.pop()) return idle;
  void run_threads();
  block.runners.push_back(std::make_unique<Runner>(run_threads));
  return block.runners.back().get();
}

// To another runner, or to the host where none can go on. Returns when this one is resumed.
void leave(Runner& own) {
  Runner* const next = next_runner();
  if (next == &own) return;
  block.running = next;
  own.fiber.switch_to(next != nullptr ? next->fiber : block.host);
}

void wait_at(const char* name) {
  Runner& own = *block.running;
  own.waits_at = name;
  leave(own);
  own.waits_at = nullptr;
  threadIdx = own.index;
}

// Acts and lets all but one go on, if everybody is here who must be.
bool held(Warp& warp, Gathering& gathering, const Runner* except) {
  const uint32_t here = gathering.here;
  if ((gathering.mask & warp.alive) != here) return false;
  gathering.meeting->act(warp.records.data(), here);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((here >> lane & 1) != 0 && warp.runners[lane] != except) block.ready.push(warp.runners[lane]);
  }
  gathering = warp.gathering[--warp.gatherings];
  return true;
}

bool barrier_passed() {
  if (block.at_barrier != block.alive) return false;
  block.at_barrier = 0;
  block.ready.append(block.waiting_at_barrier);
  return true;
}

void begin_thread(Runner& own) {
  own.thread = block.begun++;
  own.index = threadIdx = block.next_index;
  uint3& next = block.next_index;
  if (++next.x == blockDim.x) next.x = 0, ++next.y;
  if (next.y == blockDim.y) next.y = 0, ++next.z;
}

// Those that wait need it no longer.
void end_thread(const Runner& own) {
  Warp& warp = block.warps[own.thread / kWarp];
  warp.alive &= ~(1u << own.thread % kWarp);
  --block.alive;
  for (unsigned i = warp.gatherings; i-- > 0;) held(warp, warp.gathering[i], nullptr);
  if (block.at_barrier > 0) barrier_passed();
}

void run_threads() {
  for (;;) {
    Runner& own = *block.running;
    while (block.ready.empty() && block.begun < block.threads) {
      begin_thread(own);
      block.run(block.call);
      end_thread(own);
    }
    block.idle.push(&own);
    leave(own);
  }
}

void begin_block(const Launch& launch) {
  block.threads = block.alive = launch.threads.x * launch.threads.y * launch.threads.z;
  block.begun = 0;
  block.next_index = {};
  block.at_barrier = 0;
  for (unsigned first = 0; first < block.threads; first += kWarp) {
    Warp& warp = block.warps[first / kWarp];
    warp.gatherings = 0;
    warp.alive = ~0u >> (kWarp - std::min(kWarp, block.threads - first));
  }
  ++block.count;
  block.dynamic_bytes = block.shared_bytes = launch.shared_bytes;
  std::memset(block.shared.data(), 0xff, launch.shared_bytes);
}

// All threads that are left wait for each other: says which, and forgets them.
void give_up(const Launch& launch) {
  std::fprintf(stderr, "CUDA on the CPU: %s is stuck in block (%u, %u, %u): of %u threads %u have ended\n",
               launch.kernel, blockIdx.x, blockIdx.y, blockIdx.z, block.threads, block.threads - block.alive);
  constexpr int kNamed = 8;
  int named = 0;
  for (const auto& runner : block.runners) {
    if (runner->waits_at != nullptr && named++ < kNamed) {
      std::fprintf(stderr, "  thread (%u, %u, %u) waits at %s\n", runner->index.x, runner->index.y, runner->index.z,
                   runner->waits_at);
    }
  }
  if (named > kNamed) std::fprintf(stderr, "  and %d more wait\n", named - kNamed);
  block.waiting_at_barrier = block.idle = Queue();
  for (const auto& runner : block.runners) {
    runner->waits_at = nullptr;
    runner->fiber.restart();
    block.idle.push(runner.get());
  }
}

bool fits(const Launch& launch) {
  const uint64_t threads = uint64_t{launch.threads.x} * launch.threads.y * launch.threads.z;
  const bool some = threads > 0 && launch.blocks.x > 0 && launch.blocks.y > 0 && launch.blocks.z > 0;
  return some && threads <= kMaxThreads && launch.blocks.y <= kMaxGridYZ && launch.blocks.z <= kMaxGridYZ &&
         launch.shared_bytes <= kSharedBytes;
}

}  // namespace

unsigned thread_number() { return block.running->thread; }

void meet(const Meeting& meeting, uint32_t mask, void* record) {
  Runner& own = *block.running;
  Warp& warp = block.warps[own.thread / kWarp];
  const unsigned lane = own.thread % kWarp;
  if ((mask >> lane & 1) == 0) fail("the mask of a warp's function lacks the lane that calls it");
  warp.records[lane] = record;
  warp.runners[lane] = &own;
  unsigned i = 0;
  while (i < warp.gatherings && (warp.gathering[i].meeting != &meeting || warp.gathering[i].mask != mask)) ++i;
  if (i == warp.gatherings) warp.gathering[warp.gatherings++] = {&meeting, mask, 0};
  warp.gathering[i].here |= 1u << lane;
  if (!held(warp, warp.gathering[i], &own)) wait_at(meeting.name);
}

void wait_for_block() {
  ++block.at_barrier;
  if (barrier_passed()) return;
  block.waiting_at_barrier.push(block.running);
  wait_at("__syncthreads");
}

uint64_t block_count() { return block.count; }
std::byte* dynamic_shared_memory() { return block.shared.data(); }

void* shared_memory(size_t bytes, size_t alignment) {
  const size_t begin = (block.shared_bytes + alignment - 1) / alignment * alignment;
  if (begin + bytes > kSharedBytes) fail("a block has no such amount of shared memory");
  block.shared_bytes = begin + bytes;
  return std::memset(block.shared.data() + begin, 0xff, bytes);
}

uint32_t shared_address(const void* memory) {
  return static_cast<uint32_t>(static_cast<const std::byte*>(memory) - block.shared.data());
}

std::byte* at_shared_address(uint32_t address) {
  if (address >= block.shared_bytes) fail("an address lies outside the block's shared memory");
  return block.shared.data() + address;
}

cudaError_t run_blocks(const Launch& launch, void (*thread)(const void* call), const void* call) {
  if (!fits(launch)) return cudaErrorInvalidConfiguration;
  static std::mutex one_at_a_time;
  const std::scoped_lock lock(one_at_a_time);
  block.run = thread;
  block.call = call;
  blockDim = launch.threads;
  gridDim = launch.blocks;
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
        begin_block(launch);
        block.running = next_runner();
        block.host.switch_to(block.running->fiber);
        if (block.alive == 0) continue;
        give_up(launch);
        return cudaErrorLaunchFailure;
      }
    }
  }
  return cudaSuccess;
}

}  // namespace scd::cuda_on_cpu
