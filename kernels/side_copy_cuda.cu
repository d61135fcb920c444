#include "kernels/device.h"
#include "kernels/side_copy.h"
#include "kernels/side_queue.cuh"

namespace scd::kernels {

struct SideCopy::Work {
  HostStaging host;
  std::byte* here = nullptr;
  size_t bytes = 0;
  cuda::SideQueue side;  // ends first

  void copy(void* to, const void* from) {
    side.begin();
    cuda::check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, side.stream()), "copy");
  }
};

SideCopy::SideCopy() : work_(std::make_unique<Work>()) {}
SideCopy::SideCopy(SideCopy&&) noexcept = default;
SideCopy& SideCopy::operator=(SideCopy&&) noexcept = default;
SideCopy::~SideCopy() = default;

std::byte* SideCopy::host(size_t bytes) {
  wait();
  const auto words = static_cast<int64_t>((bytes + sizeof(float) - 1) / sizeof(float));
  work_->here = static_cast<std::byte*>(work_->host.matrix(1, words).data);
  work_->bytes = bytes;
  return work_->here;
}

void SideCopy::to_device(std::byte* there) { work_->copy(there, work_->here); }
void SideCopy::from_device(const std::byte* there) { work_->copy(work_->here, there); }
size_t SideCopy::bytes() const { return work_->host.size(); }
bool SideCopy::finished() const { return work_->side.idle(); }
void SideCopy::abandon() noexcept { work_->side.wait_quietly(); }
void SideCopy::wait() { work_->side.wait("a copy beside the queue"); }

}  // namespace scd::kernels
