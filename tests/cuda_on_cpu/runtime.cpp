// Memory, streams, events and graphs of CUDA's runtime.
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

struct EmulatedGraph {
  std::vector<std::function<cudaError_t()>> work;
};
struct EmulatedStream {
  EmulatedGraph* recording = nullptr;
};
struct EmulatedEvent {};

namespace scd::cuda_on_cpu {
namespace {

constexpr size_t kDeviceBytes = size_t{16} << 30;  // named, not taken
constexpr size_t kPage = 4096, kAlignment = 256;
constexpr int kUnwritten = 0xff;  // bytes of what nobody wrote: NaN as floats, -1 as integers
constexpr int kSharedBytes = 163 << 10;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int recordings = 0;  // under way; calls that would wait or move memory end them on a real GPU

cudaError_t noted(cudaError_t error) {
  note_error(error);
  return error;
}

size_t rounded_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Each piece ends at a page that cannot be touched.
class DeviceMemory {
 public:
  void* allocate(size_t bytes) {
    const std::scoped_lock lock(mutex_);
    const size_t pages = rounded_up(bytes, kPage);
    if (pages > kDeviceBytes - used_) return nullptr;
    void* begin = mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (begin == MAP_FAILED) return nullptr;
    std::memset(begin, kUnwritten, pages);
    mprotect(static_cast<std::byte*>(begin) + pages, kPage, PROT_NONE);
    void* const memory = static_cast<std::byte*>(begin) + pages - rounded_up(bytes, kAlignment);
    used_ += pages;
    pieces_[memory] = {begin, pages};
    return memory;
  }
  bool release(void* memory) {
    const std::scoped_lock lock(mutex_);
    const auto piece = pieces_.find(memory);
    if (piece == pieces_.end()) return false;
    munmap(piece->second.begin, piece->second.pages + kPage);
    used_ -= piece->second.pages;
    pieces_.erase(piece);
    return true;
  }
  size_t free_bytes() {
    const std::scoped_lock lock(mutex_);
    return kDeviceBytes - used_;
  }

 private:
  struct Piece {
    void* begin;
    size_t pages;  // bytes, without the last page
  };
  std::mutex mutex_;
  size_t used_ = 0;
  std::map<void*, Piece> pieces_;
};

DeviceMemory& device_memory() {
  static auto* const memory = new DeviceMemory;  // buffers of static storage are released late
  return *memory;
}

}  // namespace

void note_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
}

cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (stream == nullptr || stream->recording == nullptr) return work();
  stream->recording->work.push_back(std::move(work));
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

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return noted(cudaErrorInvalidDevice);
  *properties = {"emulated GPU on the CPU", 8, 0, 16, kDeviceBytes};
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return noted(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (recordings > 0) return noted(cudaErrorStreamCaptureUnsupported);
  *memory = device_memory().allocate(bytes);
  return noted(*memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* memory) {
  return noted(memory == nullptr || device_memory().release(memory) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(kPage, rounded_up(bytes, kPage));
  if (*memory == nullptr) return noted(cudaErrorMemoryAllocation);
  std::memset(*memory, kUnwritten, bytes);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = device_memory().free_bytes();
  *total = kDeviceBytes;
  return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return noted(cudaErrorInvalidValue);
  return noted(submit(stream, [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<std::byte*>(to) + row * to_pitch, static_cast<const std::byte*>(from) + row * from_pitch,
                   width);
    }
    return cudaSuccess;
  }));
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
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return noted(stream != nullptr && stream->recording != nullptr ? cudaErrorStreamCaptureUnsupported : cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t, unsigned) { return cudaStreamSynchronize(stream); }

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

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = new EmulatedGraph(*graph);
  return cudaSuccess;
}

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
