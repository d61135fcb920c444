#include "kernels/coded_streams.h"

#include <vector>

#include "kernels/require.h"

namespace scd::kernels {
namespace {

constexpr size_t kSymbols = 256;
constexpr size_t kTotal = 4096;

// The quotient of a coder's step by multiplication: off by one at most.
DeviceBuffer with_reciprocals(std::span<const uint32_t> ranges) {
  std::vector<uint32_t> pairs;
  pairs.reserve(2 * ranges.size());
  for (const uint32_t range : ranges) {
    const uint32_t frequency = range & 0xFFFFU;
    const uint64_t reciprocal = frequency > 1 ? (uint64_t{1} << 32) / frequency : UINT32_MAX;
    pairs.push_back(range);
    pairs.push_back(static_cast<uint32_t>(reciprocal));
  }
  return buffer_of(std::as_bytes(std::span(pairs)), Device::kGpu);
}

}  // namespace

StreamTables::StreamTables(std::span<const uint32_t> ranges, std::span<const uint32_t> slots)
    : ranges_(with_reciprocals(ranges)), slots_(buffer_of(std::as_bytes(slots), Device::kGpu)) {
  require(ranges.size() % kSymbols == 0 && slots.size() == ranges.size() / kSymbols * kTotal,
          "StreamTables: ", static_cast<int64_t>(ranges.size()), " ranges and ", static_cast<int64_t>(slots.size()),
          " slots are not those of whole tables");
}

#ifndef SCD_CUDA
struct StreamEncoder::Work {};
StreamEncoder::StreamEncoder() { require_device_in_build(Device::kGpu); }
StreamEncoder::StreamEncoder(StreamEncoder&&) noexcept = default;
StreamEncoder& StreamEncoder::operator=(StreamEncoder&&) noexcept = default;
StreamEncoder::~StreamEncoder() = default;
Matrix StreamEncoder::numbers(int64_t, int64_t) { return {}; }
void StreamEncoder::start(std::span<const StreamPart>, const StreamRows&) {}
bool StreamEncoder::finished() const { return true; }
std::vector<CodedStream> StreamEncoder::finish() { return {}; }
size_t StreamEncoder::bytes() const { return 0; }
struct StreamDecoder::Work {};
StreamDecoder::StreamDecoder() { require_device_in_build(Device::kGpu); }
StreamDecoder::~StreamDecoder() = default;
void StreamDecoder::start(std::span<const StreamToDecode>) {}
bool StreamDecoder::finished() const { return true; }
std::vector<StreamProblem> StreamDecoder::finish() { return {}; }
void StreamDecoder::abandon() noexcept {}
size_t StreamDecoder::bytes() const { return 0; }
#endif

}  // namespace scd::kernels
