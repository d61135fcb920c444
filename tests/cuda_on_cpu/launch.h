// kernel<<<blocks, threads, shared bytes, stream>>>(arguments), as translate.py writes it.
#pragma once

#include <cuda_runtime.h>

#include <functional>

namespace scd::cuda_on_cpu {

struct Launch {
  const char* kernel;
  dim3 blocks, threads;
  size_t shared_bytes;
  cudaStream_t stream;

  Launch(const char* of, dim3 of_blocks, dim3 of_threads, size_t bytes = 0, cudaStream_t in = nullptr)
      : kernel(of), blocks(of_blocks), threads(of_threads), shared_bytes(bytes), stream(in) {}
};

// Keeps the work for when somebody waits for the stream, or for the graph that it is recording.
cudaError_t submit(cudaStream_t stream, std::function<cudaError_t()> work);

cudaError_t run_blocks(const Launch& launch, void (*thread)(const void* call), const void* call);
void note_error(cudaError_t error);  // for cudaGetLastError()

template <class Kernel, class... Arguments>
void launch(const Launch& how, Kernel kernel, Arguments... arguments) {
  const auto call = [=] { kernel(arguments...); };
  note_error(submit(how.stream, [=] {
    return run_blocks(
        how, [](const void* of) { (*static_cast<const decltype(call)*>(of))(); }, &call);
  }));
}

}  // namespace scd::cuda_on_cpu
