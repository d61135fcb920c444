// A queue of the GPU beside a thread's own.
#pragma once

#include "kernels/cuda_common.cuh"

namespace scd::kernels::cuda {

// What is put into it after begin() comes after what the thread had queued by then.
class SideQueue {
 public:
  SideQueue() {
    cuda::stream();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    check(cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming), "cudaEventCreate");
  }
  SideQueue(const SideQueue&) = delete;
  SideQueue& operator=(const SideQueue&) = delete;
  ~SideQueue() {
    cudaStreamSynchronize(stream_);
    cudaEventDestroy(queued_);
    cudaStreamDestroy(stream_);
  }

  cudaStream_t stream() const { return stream_; }
  void begin() {
    check(cudaEventRecord(queued_, cuda::stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_, queued_), "cudaStreamWaitEvent");
  }
  bool idle() const {
    const cudaError_t state = cudaStreamQuery(stream_);
    if (state != cudaErrorNotReady) check(state, "work beside the queue");
    return state == cudaSuccess;
  }
  void wait(const char* what) const { check(cudaStreamSynchronize(stream_), what); }
  void wait_quietly() const noexcept { cudaStreamSynchronize(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t queued_ = nullptr;
};

}  // namespace scd::kernels::cuda
