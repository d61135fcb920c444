// Memory, streams, events and graphs of CUDA's runtime.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/cuda_on_cpu/device_memory.h"

struct EmulatedGraph {
  std::vector<std::function<cudaError_t()>> work;
};
struct EmulatedStream {
  EmulatedGraph* recording = nullptr;
};
struct EmulatedEvent {};

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

}  // namespace

void note_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
}

cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work) {
  if (stream == nullptr || stream->recording == nullptr) {
    const DeviceWork now;
    return work();
  }
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
  *memory = allocate_device_memory(bytes);
  return noted(*memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* memory) {
  return noted(memory == nullptr || release_device_memory(memory) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  constexpr size_t kPage = 4096;
  *memory = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
  if (*memory == nullptr) return noted(cudaErrorMemoryAllocation);
  std::memset(*memory, kUnwritten, bytes);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = free_device_memory();
  *total = kDeviceBytes;
  return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch || std::max(to_pitch, from_pitch) > kLargestPitch) {
    return noted(cudaErrorInvalidValue);
  }
  return noted(submit(stream, [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memmove(static_cast<std::byte*>(to) + row * to_pitch, static_cast<const std::byte*>(from) + row * from_pitch,
                   width);
    }
    return cudaSuccess;
  }));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return noted(submit(stream, [=] {
    std::memmove(to, from, bytes);
    return cudaSuccess;
  }));
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
