// The GPU of the process, its memory and its queue.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/ragged_batch.h"
#include "kernels/staged_copy.h"

namespace scd::kernels {
namespace {

constexpr int kOldestCapability = 80;

GpuDevice look_at(int ordinal) {
  GpuDevice found;
  cudaDriverGetVersion(&found.cuda_of_driver);
  cudaRuntimeGetVersion(&found.cuda_runtime);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || ordinal < 0 || ordinal >= count) {
    cudaGetLastError();  // it is told here and must not be found again by the next check
    if (found.cuda_of_driver == 0) {
      found.reason = "no NVIDIA driver on this machine";
    } else if (error != cudaSuccess) {
      found.reason = cudaGetErrorString(error);
    } else {
      found.reason = "no GPU " + std::to_string(ordinal) + ", there are " + std::to_string(count);
    }
    return found;
  }
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
  found.name = properties.name;
  std::array<char, 32> place{};
  std::snprintf(place.data(), place.size(), "%08x:%02x:%02x.0", static_cast<unsigned>(properties.pciDomainID),
                static_cast<unsigned>(properties.pciBusID), static_cast<unsigned>(properties.pciDeviceID));
  found.pci_bus_id = place.data();
  found.compute_capability = properties.major * 10 + properties.minor;
  found.multiprocessors = properties.multiProcessorCount;
  found.memory_bytes = properties.totalGlobalMem;
  found.usable = found.compute_capability >= kOldestCapability;
  if (!found.usable) found.reason = found.name + " is older than compute capability 8.0";
  return found;
}

struct Chosen {
  int ordinal = 0;
  GpuDevice device = look_at(0);
};

Chosen& chosen() {
  static Chosen of_process;
  return of_process;
}

}  // namespace

const GpuDevice& gpu_device() { return chosen().device; }

void use_gpu_device(int ordinal) {
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  static int used = -1;  // queues and memory of the process are there
  if (used >= 0 && used != ordinal) {
    throw std::runtime_error("device cuda:" + std::to_string(ordinal) +
                             ": this process uses cuda:" + std::to_string(used) + " already");
  }
  if (used == ordinal) return;
  if (ordinal != chosen().ordinal) chosen() = {ordinal, look_at(ordinal)};
  if (!gpu_device().usable) {
    throw std::runtime_error("device cuda:" + std::to_string(ordinal) + ": " + gpu_device().reason);
  }
  cuda::stream();
  used = ordinal;
}

DeviceMemory gpu_memory() {
  cuda::stream();
  DeviceMemory memory;
  cuda::check(cudaMemGetInfo(&memory.free_bytes, &memory.total_bytes), "cudaMemGetInfo");
  return memory;
}

namespace cuda {

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA, ") + what + ": " + cudaGetErrorString(result));
}

namespace {

// That of Queue below while it is there: needs no destructor, so that what ends after it may look.
thread_local cudaStream_t open_stream = nullptr;

// The queue of a thread; its work is done before the thread is gone.
struct Queue {
  cudaStream_t stream = nullptr;
  Queue() {
    if (!gpu_device().usable) throw std::runtime_error("CUDA: " + gpu_device().reason);
    check(cudaSetDevice(chosen().ordinal), "cudaSetDevice");
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    open_stream = stream;
  }
  ~Queue() {
    open_stream = nullptr;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
};

}  // namespace

cudaStream_t stream() {
  thread_local const Queue queue;
  return queue.stream;
}

std::byte* allocate_pinned(size_t bytes) {
  stream();
  void* memory = nullptr;
  const cudaError_t result = cudaMallocHost(&memory, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfDeviceMemory("page-locked memory of the host: " + std::to_string(bytes >> 20) + " MiB asked for");
  }
  check(result, "page-locked memory");
  return static_cast<std::byte*>(memory);
}

void release_pinned(std::byte* memory) noexcept { cudaFreeHost(memory); }

std::byte* allocate(size_t bytes) {
  stream();
  void* memory = nullptr;
  const cudaError_t result = cudaMalloc(&memory, bytes);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    throw OutOfDeviceMemory("GPU memory: " + std::to_string(bytes >> 20) + " MiB asked for, " +
                            std::to_string(free_bytes >> 20) + " of " + std::to_string(total >> 20) + " MiB are free");
  }
  check(result, "cudaMalloc");
  return static_cast<std::byte*>(memory);
}

void release(std::byte* memory) noexcept { cudaFree(memory); }

void finish_work() noexcept {
  if (open_stream != nullptr) cudaStreamSynchronize(open_stream);
}

void synchronize() { check(cudaStreamSynchronize(stream()), "an op queued before"); }

void* event_behind_queue(void* event, bool timed) {
  auto made = static_cast<cudaEvent_t>(event);
  const unsigned flags = timed ? cudaEventDefault : cudaEventDisableTiming;
  if (made == nullptr) check(cudaEventCreateWithFlags(&made, flags), "cudaEventCreate");
  check(cudaEventRecord(made, stream()), "cudaEventRecord");
  return made;
}

void wait_for(void* event) {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "an op before a place in the queue");
}

std::chrono::duration<double> time_between(void* earlier, void* later) {
  float milliseconds = 0.0f;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier), static_cast<cudaEvent_t>(later)),
        "the time between places in the queue");
  return std::chrono::duration<double, std::milli>(milliseconds);
}

void release_event(void* event) noexcept {
  if (event != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

namespace {

size_t pitch(const ConstMatrix& m) {
  return static_cast<size_t>(m.rows > 1 ? m.row_stride : m.columns) * size_of(m.dtype);
}

// Rows of `words` units of T; a block takes kRowsOfBlock of them.
constexpr int kRowsOfBlock = 8;
template <class T>
__global__ void copy_rows_kernel(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows,
                                 int words) {
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.y;
  if (row >= rows) return;
  for (int i = static_cast<int>(threadIdx.x); i < words; i += 32) {
    to[row * to_stride + i] = from[row * from_stride + i];
  }
}

template <class T>
bool copied_in_units_of(const ConstMatrix& from, const Matrix& to) {
  const size_t bytes = static_cast<size_t>(from.columns) * size_of(from.dtype);
  const size_t all =
      reinterpret_cast<uintptr_t>(from.data) | reinterpret_cast<uintptr_t>(to.data) | pitch(from) | pitch(to) | bytes;
  if (all % sizeof(T) != 0) return false;
  const auto blocks = static_cast<unsigned>((from.rows + kRowsOfBlock - 1) / kRowsOfBlock);
  copy_rows_kernel<<<blocks, dim3(32, kRowsOfBlock), 0, stream()>>>(
      static_cast<const T*>(from.data), static_cast<int64_t>(pitch(from) / sizeof(T)), static_cast<T*>(to.data),
      static_cast<int64_t>(pitch(to) / sizeof(T)), from.rows, static_cast<int>(bytes / sizeof(T)));
  check_launch("copy");
  return true;
}

bool page_locked(const void* memory) {
  cudaPointerAttributes attributes;
  check(cudaPointerGetAttributes(&attributes, memory), "cudaPointerGetAttributes");
  return attributes.type == cudaMemoryTypeHost;
}

}  // namespace

void clear(Matrix m) {
  if (m.rows == 1 || m.row_stride == m.columns) {  // a pitch has a limit
    check(cudaMemsetAsync(m.data, 0, static_cast<size_t>(m.rows * m.columns) * size_of(m.dtype), stream()), "clear");
    return;
  }
  check(cudaMemset2DAsync(m.data, pitch(m), 0, static_cast<size_t>(m.columns) * size_of(m.dtype),
                          static_cast<size_t>(m.rows), stream()),
        "clear");
}

// Between places of the GPU rows of several pitches go by a kernel: CUDA's own copies of narrow ones are slow.
void copy(ConstMatrix from, Matrix to) {
  const size_t size = size_of(from.dtype);
  const bool there = from.device == Device::kGpu && to.device == Device::kGpu;
  if (there && (copied_in_units_of<uint4>(from, to) || copied_in_units_of<uint32_t>(from, to) ||
                copied_in_units_of<uint16_t>(from, to))) {
    return;
  }
  const size_t row_bytes = static_cast<size_t>(from.columns) * size;
  const bool large = row_bytes * static_cast<size_t>(from.rows) >= kFewestStagedBytes && from.device != to.device;
  if (large && !page_locked(from.device == Device::kCpu ? from.data : to.data)) {
    return (to.device == Device::kGpu ? staged_upload : staged_download)(
        {static_cast<const std::byte*>(from.data), pitch(from)}, {static_cast<std::byte*>(to.data), pitch(to)},
        {static_cast<size_t>(from.rows), row_bytes});
  }
  if (pitch(from) == row_bytes && pitch(to) == row_bytes) {  // a pitch has a limit
    check(cudaMemcpyAsync(to.data, from.data, row_bytes * static_cast<size_t>(from.rows), cudaMemcpyDefault, stream()),
          "copy");
  } else {
    check(cudaMemcpy2DAsync(to.data, pitch(to), from.data, pitch(from), row_bytes, static_cast<size_t>(from.rows),
                            cudaMemcpyDefault, stream()),
          "copy");
  }
  if (from.device == Device::kCpu || to.device == Device::kCpu) synchronize();
}

void copy_bytes(std::span<const std::byte> from, std::byte* to) {
  check(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, stream()), "copy");
  synchronize();
}

namespace {

// Page-locked memory in turns of one size, filled one after the other, each free again once its copies are done.
class Staging {
 public:
  Staging() : memory_(allocate_pinned(kTurns * kTurnBytes)) {  // and the queue, which outlives it
    for (cudaEvent_t& done : done_) check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "cudaEventCreate");
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    cudaStreamSynchronize(stream());
    for (cudaEvent_t done : done_) cudaEventDestroy(done);
    release_pinned(memory_);
  }

  void send(std::span<const std::byte> bytes, std::byte* to) {
    while (!bytes.empty()) {
      if (used_ == kTurnBytes) take_turn();
      const size_t count = std::min(bytes.size(), kTurnBytes - used_);
      std::byte* const from = memory_ + turn_ * kTurnBytes + used_;
      std::memcpy(from, bytes.data(), count);
      check(cudaMemcpyAsync(to, from, count, cudaMemcpyHostToDevice, stream()), "upload");
      bytes = bytes.subspan(count);
      to += count;
      used_ += count;
    }
  }

 private:
  static constexpr size_t kTurns = 4;
  static constexpr size_t kTurnBytes = size_t{256} << 10;

  void take_turn() {
    check(cudaEventRecord(done_[turn_], stream()), "cudaEventRecord");
    turn_ = (turn_ + 1) % kTurns;
    check(cudaEventSynchronize(done_[turn_]), "an op queued before");
    used_ = 0;
  }

  std::byte* memory_;
  std::array<cudaEvent_t, kTurns> done_{};
  size_t turn_ = 0;
  size_t used_ = 0;
};

}  // namespace

void upload(std::span<const int32_t> numbers, std::byte* to) {
  thread_local Staging staging;
  staging.send(std::as_bytes(numbers), to);
}

void upload_queued(std::span<const int32_t> numbers, std::byte* to) {
  check(cudaMemcpyAsync(to, numbers.data(), numbers.size_bytes(), cudaMemcpyHostToDevice, stream()), "upload");
}

namespace {

constexpr auto kSlots = static_cast<size_t>(Slot::kCount);
static_assert(kSlots <= 32, "a bit a slot");

struct Scratch {
  std::array<DeviceBuffer, kSlots> memory;
  std::array<uint64_t, kSlots> moves{};
  uint32_t asked_for = 0;  // slots, since the last recording began
};

Scratch& scratch() {
  thread_local Scratch of_thread;
  return of_thread;
}

}  // namespace

uint64_t scratch_moves(uint32_t slots) {
  uint64_t moves = 0;
  for (size_t slot = 0; slot < kSlots; ++slot) moves += (slots >> slot & 1) != 0 ? scratch().moves[slot] : 0;
  return moves;
}

Recording record(const std::function<void()>& work) {
  scratch().asked_for = 0;
  check(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "the start of a recording");
  cudaGraph_t graph = nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream(), &graph);
    cudaGetLastError();  // what broke off is told already
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream(), &graph), "the end of a recording");
  cudaGraphExec_t made = nullptr;
  cudaError_t result = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  if (result == cudaSuccess) result = cudaGraphUpload(made, stream());  // not when it is replayed first
  if (result != cudaSuccess && made != nullptr) cudaGraphExecDestroy(made);
  if (result == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfDeviceMemory("GPU memory: none is left for a recorded step");
  }
  check(result, "making a graph");
  return {made, scratch().asked_for};
}

void replay(void* graph) { check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream()), "replay"); }

void release_graph(void* graph) noexcept {
  if (graph != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph));
}

std::byte* device_scratch(Slot slot, size_t bytes) {
  const auto index = static_cast<size_t>(slot);
  DeviceBuffer& buffer = scratch().memory[index];
  scratch().asked_for |= uint32_t{1} << index;
  if (buffer.size() < bytes) {
    ++scratch().moves[index];  // also where there is no memory for it: recordings read what is gone
    grow(buffer, Device::kGpu, bytes + bytes / 4);
  }
  return buffer.data();
}

// The copies of what came without one belong to the thread. Its work is queued in order, so its next call may overwrite
// them.
const int32_t* on_device(const Indices& indices) {
  if (indices.device != nullptr) return indices.device;
  // So large at first that it seldom moves.
  constexpr size_t kLeastBytes = 64 << 10;
  std::byte* memory = device_scratch(Slot::kIndices, std::max(indices.host.size_bytes(), kLeastBytes));
  upload(indices.host, memory);
  return reinterpret_cast<const int32_t*>(memory);
}

const DeviceSequences& on_device(const Sequences& sequences) {
  if (sequences.device != nullptr) return *sequences.device;
  thread_local RaggedBatch batch(Device::kGpu);
  batch.assign({}, sequences.host);
  return *batch.sequences().device;
}

}  // namespace cuda
}  // namespace scd::kernels
