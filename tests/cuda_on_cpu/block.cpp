#include "tests/cuda_on_cpu/block.h"

#include <sanitizer/asan_interface.h>

#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/cuda_on_cpu/device_memory.h"
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
  Runner(void (*body)(), size_t number) : fiber(body, number) {}
  Fiber fiber;
  unsigned thread = 0;
  uint3 index{};
  const char* waits_at = nullptr;
};

// Lanes that are at the same meeting, some still to come.
struct Gathering {
  const Meeting* meeting;
  uint32_t mask, here;
};

struct Warp {
  uint32_t alive = 0, ready = 0;  // lanes
  unsigned gatherings = 0;
  std::array<Gathering, kWarp> gathering{};
  std::array<void*, kWarp> records{};
  std::array<Runner*, kWarp> runners{};  // of lanes that wait or are ready
};

// The block that runs, and what blocks leave for the next.
struct Block {
  void (*run)(const void*) = nullptr;
  const void* call = nullptr;
  unsigned threads = 0, begun = 0, alive = 0;
  std::array<Warp, kMaxThreads / kWarp> warps;
  uint32_t ready_warps = 0;
  unsigned at_barrier = 0;
  Runner* running = nullptr;
  Fiber host;
  std::vector<std::unique_ptr<Runner>> runners;
  std::vector<Runner*> idle;
  uint64_t count = 0;
  size_t shared_bytes = 0;
  alignas(4096) std::array<std::byte, kSharedBytes> shared;
};

Block block;

void let_go_on(Warp& warp, uint32_t lanes) {
  warp.ready |= lanes;
  if (lanes != 0) block.ready_warps |= 1u << (&warp - block.warps.data());
}

// Every second block goes through its threads from the last to the first: a barrier that is missing shows in one of
// the two orders.
bool backwards() { return block.count % 2 == 0; }

unsigned next_bit(uint32_t bits) {
  return static_cast<unsigned>(backwards() ? 31 - std::countl_zero(bits) : std::countr_zero(bits));
}

Runner* take_ready() {
  const unsigned number = next_bit(block.ready_warps);
  Warp& warp = block.warps[number];
  const unsigned lane = next_bit(warp.ready);
  warp.ready &= ~(1u << lane);
  if (warp.ready == 0) block.ready_warps &= ~(1u << number);
  return warp.runners[lane];
}

// A runner for a thread that is yet to begin; null: there is none.
Runner* free_runner() {
  if (block.begun == block.threads) return nullptr;
  if (block.idle.empty()) {
    void run_threads();
    block.runners.push_back(std::make_unique<Runner>(run_threads, block.runners.size()));
    return block.runners.back().get();
  }
  Runner* const idle = block.idle.back();
  block.idle.pop_back();
  return idle;
}

Runner* next_runner() { return block.ready_warps != 0 ? take_ready() : free_runner(); }

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
  threadIdx = own.index;
}

// Acts and lets all go on, if everybody is here who must be.
void hold(Warp& warp, Gathering& gathering) {
  if ((gathering.mask & warp.alive) != gathering.here) return;
  gathering.meeting->act(warp.records.data(), gathering.here);
  let_go_on(warp, gathering.here);
  gathering = warp.gathering[--warp.gatherings];
}

// All go on, if everybody waits.
void pass_barrier() {
  if (block.at_barrier != block.alive) return;
  block.at_barrier = 0;
  for (unsigned first = 0; first < block.threads; first += kWarp) {
    Warp& warp = block.warps[first / kWarp];
    let_go_on(warp, warp.alive);
  }
}

void begin_thread(Runner& own) {
  const unsigned number = block.begun++;
  own.thread = backwards() ? block.threads - 1 - number : number;
  own.index = {own.thread % blockDim.x, own.thread / blockDim.x % blockDim.y, own.thread / blockDim.x / blockDim.y};
  threadIdx = own.index;
}

// Those that wait need it no longer.
void end_thread(const Runner& own) {
  Warp& warp = block.warps[own.thread / kWarp];
  warp.alive &= ~(1u << own.thread % kWarp);
  --block.alive;
  for (unsigned i = warp.gatherings; i-- > 0;) hold(warp, warp.gathering[i]);
  if (block.at_barrier > 0) pass_barrier();
}

void run_threads() {
  for (;;) {
    Runner& own = *block.running;
    while (block.ready_warps == 0 && block.begun < block.threads) {
      begin_thread(own);
      block.run(block.call);
      end_thread(own);
    }
    block.idle.push_back(&own);
    leave(own);
  }
}

void begin_block(const Launch& launch) {
  block.threads = block.alive = launch.threads.x * launch.threads.y * launch.threads.z;
  block.begun = 0;
  block.ready_warps = block.at_barrier = 0;
  for (unsigned first = 0; first < block.threads; first += kWarp) {
    Warp& warp = block.warps[first / kWarp];
    warp.ready = warp.gatherings = 0;
    warp.alive = ~0u >> (kWarp - std::min(kWarp, block.threads - first));
  }
  ++block.count;
  block.shared_bytes = launch.shared_bytes;
  ASAN_POISON_MEMORY_REGION(block.shared.data(), kSharedBytes);
  ASAN_UNPOISON_MEMORY_REGION(block.shared.data(), launch.shared_bytes);
  std::memset(block.shared.data(), kUnwritten, launch.shared_bytes);
}

// All threads that are left wait for each other: says which, and forgets them.
void give_up(const Launch& launch) {
  std::fprintf(stderr, "CUDA on the CPU: %s is stuck in block (%u, %u, %u): of %u threads %u have ended\n",
               launch.kernel, blockIdx.x, blockIdx.y, blockIdx.z, block.threads, block.threads - block.alive);
  constexpr unsigned kNamed = 8;
  unsigned named = 0;
  for (unsigned thread = 0; thread < block.threads && named < kNamed; ++thread) {
    const Warp& warp = block.warps[thread / kWarp];
    if ((warp.alive >> thread % kWarp & 1) == 0) continue;
    const Runner& runner = *warp.runners[thread % kWarp];
    std::fprintf(stderr, "  thread (%u, %u, %u) waits at %s\n", runner.index.x, runner.index.y, runner.index.z,
                 runner.waits_at);
    ++named;
  }
  block.idle.clear();
  for (const auto& runner : block.runners) {
    runner->fiber.restart();
    block.idle.push_back(runner.get());
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
  hold(warp, warp.gathering[i]);
  wait_at(meeting.name);
}

void wait_for_block() {
  Runner& own = *block.running;
  block.warps[own.thread / kWarp].runners[own.thread % kWarp] = &own;
  ++block.at_barrier;
  pass_barrier();
  wait_at("__syncthreads");
}

uint64_t block_count() { return block.count; }
std::byte* dynamic_shared_memory() { return block.shared.data(); }

void* shared_memory(size_t bytes, size_t alignment) {
  constexpr size_t kGap = 16;  // where AddressSanitizer sees an index that is too large
  const size_t begin = (block.shared_bytes + kGap + alignment - 1) / alignment * alignment;
  if (begin + bytes > kSharedBytes) fail("a block has no such amount of shared memory");
  block.shared_bytes = begin + bytes;
  ASAN_UNPOISON_MEMORY_REGION(block.shared.data() + begin, bytes);
  return std::memset(block.shared.data() + begin, kUnwritten, bytes);
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
