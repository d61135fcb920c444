// Memory, streams, events and graphs of CUDA's runtime.
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "tests/cuda_on_cpu/calls.h"
#include "tests/cuda_on_cpu/device_memory.h"
#include "tests/cuda_on_cpu/queue.h"

using Clock = std::chrono::steady_clock;
using scd::cuda_on_cpu::Queue;
using scd::cuda_on_cpu::Work;

struct EmulatedGraph {
  std::vector<Work> work;
};
struct EmulatedStream {
  EmulatedGraph* recording = nullptr;
  std::shared_ptr<Queue> queue = Queue::make();
};
struct EmulatedEvent {
  std::mutex mutex;
  std::shared_ptr<Queue> queue;  // none: it was not recorded
  uint64_t work = 0;             // that is done when it has happened
  bool timed = false;
  std::shared_ptr<std::optional<Clock::time_point>> reached;  // of the last record of a timed one
};

namespace scd::cuda_on_cpu {
namespace {

constexpr size_t kLargestPitch = 0x7fffffff;
constexpr int kSharedBytes = 163 << 10;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int recordings = 0;  // under way; calls that would wait or move memory end them on a real GPU

cudaError_t noted(cudaError_t error) {
  note_error(error);
  return error;
}

// Relaxed: they order nothing.
struct Counters {
  std::atomic<int64_t> device_allocations{0}, pinned_allocations{0}, graphs{0}, waits{0}, drained{0};
} counters;
std::atomic<int64_t> room_for_graphs = int64_t{1} << 40;

void count(std::atomic<int64_t>& calls) { calls.fetch_add(1, std::memory_order_relaxed); }

cudaError_t wait_for(Queue& queue, uint64_t work) {
  if (!queue.done(work)) {
    count(counters.waits);
    if (work == queue.put_in()) count(counters.drained);
  }
  return queue.run(work);
}

}  // namespace

Calls calls() {
  const auto of = [](const std::atomic<int64_t>& calls) { return calls.load(std::memory_order_relaxed); };
  return {.device_allocations = of(counters.device_allocations),
          .pinned_allocations = of(counters.pinned_allocations),
          .graphs = of(counters.graphs),
          .waits = of(counters.waits),
          .drained = of(counters.drained)};
}

void leave_room_for_graphs(int64_t more) { room_for_graphs = more; }

void note_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
}

cudaError_t submit(cudaStream_t stream, Work work) {
  if (stream == nullptr) {
    const DeviceWork now;
    return work();
  }
  if (stream->recording != nullptr) {
    stream->recording->work.push_back(std::move(work));
  } else {
    stream->queue->put(std::move(work));
  }
  return cudaSuccess;
}

}  // namespace scd::cuda_on_cpu

using namespace scd::cuda_on_cpu;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorLaunchFailure: return "a kernel is stuck";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted while a stream is recording";
  }
  return "unknown error";
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return noted(cudaErrorInvalidDevice);
  *properties = {"emulated GPU on the CPU", 8, 0, 16, kDeviceBytes, 0, 0, 0};
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return noted(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (recordings > 0) return noted(cudaErrorStreamCaptureUnsupported);
  count(counters.device_allocations);
  *memory = allocate_device_memory(bytes);
  return noted(*memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

// As on a GPU, which waits for all its work before memory goes.
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  count(counters.waits);
  run_all();
  return noted(release_device_memory(memory) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  count(counters.pinned_allocations);
  *memory = allocate_pinned_memory(bytes);
  return noted(*memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  count(counters.waits);
  run_all();
  return noted(release_pinned_memory(memory) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  attributes->type = is_device_memory(memory)   ? cudaMemoryTypeDevice
                     : is_pinned_memory(memory) ? cudaMemoryTypeHost
                                                : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = free_device_memory();
  *total = kDeviceBytes;
  return cudaSuccess;
}

namespace {

bool pageable(const void* memory) { return !is_device_memory(memory) && !is_pinned_memory(memory); }

void copy_rows(std::byte* to, size_t to_pitch, const std::byte* from, size_t from_pitch, size_t width, size_t height) {
  for (size_t row = 0; row < height; ++row) std::memmove(to + row * to_pitch, from + row * from_pitch, width);
}

}  // namespace

// From ordinary memory the call takes along what is there, and where it copies to such memory it waits, as on a GPU.
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch || std::max(to_pitch, from_pitch) > kLargestPitch) {
    return noted(cudaErrorInvalidValue);
  }
  auto* const target = static_cast<std::byte*>(to);
  const auto* source = static_cast<const std::byte*>(from);
  const bool later = stream != nullptr && stream->recording == nullptr;
  std::shared_ptr<std::vector<std::byte>> taken;
  if (later && pageable(from)) {
    taken = std::make_shared<std::vector<std::byte>>(width * height);
    copy_rows(taken->data(), width, source, from_pitch, width, height);
    source = taken->data();
    from_pitch = width;
  }
  submit(stream, [=] {
    static_cast<void>(taken);  // lives as long
    copy_rows(target, to_pitch, source, from_pitch, width, height);
    return cudaSuccess;
  });
  return later && pageable(to) ? cudaStreamSynchronize(stream) : cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  if (width > pitch) return noted(cudaErrorInvalidValue);
  return noted(submit(stream, [=] {
    for (size_t row = 0; row < height; ++row) std::memset(static_cast<std::byte*>(to) + row * pitch, value, width);
    return cudaSuccess;
  }));
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return cudaMemset2DAsync(to, bytes, value, bytes, 1, stream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const cudaError_t error = cudaStreamSynchronize(stream);
  delete stream;
  return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream == nullptr) return cudaSuccess;
  if (stream->recording != nullptr) return noted(cudaErrorStreamCaptureUnsupported);
  return noted(wait_for(*stream->queue, stream->queue->put_in()));
}

// A GPU gets on while somebody asks. That it is not ready is no error that cudaGetLastError() tells.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (stream == nullptr) return cudaSuccess;
  if (stream->recording != nullptr) return noted(cudaErrorStreamCaptureUnsupported);
  Queue& queue = *stream->queue;
  if (queue.done(queue.put_in())) return cudaStreamSynchronize(stream);
  queue.run_one();
  return cudaErrorNotReady;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->recording != nullptr) return noted(cudaErrorStreamCaptureUnsupported);
  stream->recording = new EmulatedGraph;
  ++recordings;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = std::exchange(stream->recording, nullptr);
  --recordings;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new EmulatedEvent;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream == nullptr) return noted(cudaErrorInvalidValue);  // the project has no events there
  if (stream->recording != nullptr) return noted(cudaErrorStreamCaptureUnsupported);
  const std::scoped_lock lock(event->mutex);
  event->queue = stream->queue;
  if (event->timed) {
    event->reached = std::make_shared<std::optional<Clock::time_point>>();
    stream->queue->put([reached = event->reached] {
      *reached = Clock::now();
      return cudaSuccess;
    });
  }
  event->work = stream->queue->put_in();
  return cudaSuccess;
}

namespace {

// Where the work is that must be done, as it was last recorded.
std::pair<std::shared_ptr<Queue>, uint64_t> recorded(cudaEvent_t event) {
  const std::scoped_lock lock(event->mutex);
  return {event->queue, event->work};
}

}  // namespace

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream == nullptr) return noted(cudaErrorInvalidValue);
  if (stream->recording != nullptr) return noted(cudaErrorStreamCaptureUnsupported);
  const auto [queue, work] = recorded(event);
  if (queue == nullptr) return cudaSuccess;
  return submit(stream, [queue = queue, work = work] { return queue->run(work); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const auto [queue, work] = recorded(event);
  return noted(queue == nullptr ? cudaSuccess : wait_for(*queue, work));
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t earlier, cudaEvent_t later) {
  if (earlier == nullptr || later == nullptr || !earlier->timed || !later->timed) return noted(cudaErrorInvalidValue);
  for (const cudaEvent_t event : {earlier, later}) {
    const auto [queue, work] = recorded(event);
    if (queue == nullptr) return noted(cudaErrorInvalidValue);
    if (!queue->done(work)) return noted(cudaErrorNotReady);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(**later->reached - **earlier->reached).count();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = nullptr;
  if (room_for_graphs.fetch_sub(1) <= 0) return noted(cudaErrorMemoryAllocation);
  count(counters.graphs);
  *made = new EmulatedGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  for (const auto& work : graph->work) {
    if (const cudaError_t error = submit(stream, work); error != cudaSuccess) return noted(error);
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) { return cudaGraphDestroy(graph); }

cudaError_t set_function_attribute(cudaFuncAttribute, int value) {
  return noted(value <= kSharedBytes ? cudaSuccess : cudaErrorInvalidValue);
}
