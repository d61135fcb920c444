// Large copies between the host and a GPU at the speed of the bus, beside what their thread queues meanwhile.
// CUDA only: a build without it throws std::invalid_argument.
#pragma once

#include <cstddef>
#include <memory>

namespace scd::kernels {

// One copy at a time, by way of page-locked memory that grows and is kept.
class SideCopy {
 public:
  SideCopy();
  SideCopy(SideCopy&&) noexcept;
  SideCopy& operator=(SideCopy&&) noexcept;
  ~SideCopy();  // waits

  // The host's side of the next copy, `bytes` long; waits for the one before. Valid until the next call.
  std::byte* host(size_t bytes);
  // Copies all of host() to the GPU or from there. Begins behind what the thread has queued, and returns at once: until
  // it is done, the memory on the GPU must stay, and what is queued later must leave it alone.
  void to_device(std::byte* there);
  void from_device(const std::byte* there);
  // Whether wait() would not wait.
  bool finished() const;
  void wait();
  // Waits too, whatever became of the copy.
  void abandon() noexcept;
  size_t bytes() const;  // of page-locked memory

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

}  // namespace scd::kernels
