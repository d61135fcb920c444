// A queue of the GPU beside a thread's own.
#pragma once

#include "kernels/cuda_common.cuh"

namespace scd::kernels::cuda {

// What is put into it between begin() and end() comes after what the thread had queued.
class SideQueue {
 public:
  SideQueue() {
    cuda::stream();
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    check(cudaEventCreateWithFlags(&queued_, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
  }
  SideQueue(const SideQueue&) = delete;
  SideQueue& operator=(const SideQueue&) = delete;
  ~SideQueue() {
    cudaEventDestroy(queued_);
    cudaEventDestroy(done_);
    cudaStreamDestroy(stream_);
  }

  cudaStream_t stream() const { return stream_; }
  void begin() {
    check(cudaEventRecord(queued_, cuda::stream()), "cudaEventRecord");
    check(cudaStreamWaitEvent(stream_, queued_), "cudaStreamWaitEvent");
  }
  void end() { check(cudaEventRecord(done_, stream_), "cudaEventRecord"); }
  bool idle() const { return cudaEventQuery(done_) == cudaSuccess; }
  void wait(const char* what) const { check(cudaEventSynchronize(done_), what); }
  void wait_quietly() const noexcept { cudaEventSynchronize(done_); }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t queued_ = nullptr, done_ = nullptr;
};

}  // namespace scd::kernels::cuda
