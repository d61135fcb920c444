#include "kernels/side_copy.h"

#include "kernels/require.h"

namespace scd::kernels {

#ifndef SCD_CUDA
struct SideCopy::Work {};
SideCopy::SideCopy() { require_device_in_build(Device::kGpu); }
SideCopy::SideCopy(SideCopy&&) noexcept = default;
SideCopy& SideCopy::operator=(SideCopy&&) noexcept = default;
SideCopy::~SideCopy() = default;
std::byte* SideCopy::host(size_t) { return nullptr; }
void SideCopy::to_device(std::byte*) {}
void SideCopy::from_device(const std::byte*) {}
bool SideCopy::finished() const { return true; }
void SideCopy::wait() {}
void SideCopy::abandon() noexcept {}
size_t SideCopy::bytes() const { return 0; }
#endif

}  // namespace scd::kernels
