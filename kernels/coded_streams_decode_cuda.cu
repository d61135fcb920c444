#include <algorithm>
#include <cstring>

#include "kernels/coded_streams_cuda.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

using namespace cuda::streams;
using cuda::check;

constexpr int32_t kLargestEscaped = 1'000'000'000;

__device__ inline float value_of(int32_t integer, float shift, float step) {
  const float signed_shift = integer > 0 ? shift : integer < 0 ? -shift : 0.0f;
  return __fmul_rn(__fadd_rn(static_cast<float>(integer), signed_shift), step);
}

// A stream on the device.
struct Place {
  const uint32_t* states;
  const uint16_t* words;
  const int32_t* escapes;
  const StreamRow* row_tables;
  const uint32_t* slots;
  __nv_bfloat16* numbers;
  int64_t stride;
  float step;
  int32_t word_count, escape_count;
  int32_t rows, columns;
};

// Where a step of the decoder finds its table and puts its number.
struct Target {
  StreamRow row;
  int32_t number;
  bool active;
};

// Of a group of steps, whose numbers that escape have a bit each: these, in their order. False where one is out of
// range.
__device__ inline bool put_escapes(const Place& place, const Target (&targets)[kSteps], uint32_t escaped, unsigned lane,
                                   int32_t& next) {
  bool in_range = true;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const bool escapes = (escaped >> i & 1U) != 0;
    const unsigned escaping = __ballot_sync(kAll, escapes);
    const int32_t escape = next + count_below(escaping, lane);
    next += __popc(escaping);
    if (!escapes) continue;
    const int32_t integer = escape < place.escape_count ? place.escapes[escape] : 0;
    in_range &= integer >= -kLargestEscaped && integer <= kLargestEscaped;
    const float value = value_of(integer, targets[i].row.shift, place.step);
    place.numbers[targets[i].number] = __float2bfloat16_rn(value);
  }
  return in_range;
}

__global__ void __launch_bounds__(kThreadsOfBlock)
    decode_kernel(const Place* places, unsigned streams, StreamProblem* problems) {
  const unsigned lane = threadIdx.x % kWarp, stream = stream_of_warp();
  if (stream >= streams) return;
  const Place place = places[stream];
  const bool codes = lane < kLanes;
  uint32_t state = codes ? place.states[lane] : kLowerBound;
  bool sound = state >= kLowerBound;
  bool in_range = true;
  int32_t next_word = 0, next_escape = 0;
  const int32_t count = place.rows * place.columns;
  Cursor at(place.rows, place.columns, lane % kLanes);
  Target next[kSteps];
  const auto fetch = [&] {
    const bool active = codes && at.inside();
    const int32_t row = active ? at.row : 0, column = active ? at.column : 0;
    at.forward();
    return Target{place.row_tables[row], static_cast<int32_t>(column * place.stride + row), active};
  };
  if (count > 0) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) next[i] = fetch();
  }
  const int32_t last_word = max(place.word_count - 1, 0);
  for (int32_t first = 0; first < count; first += kSteps * kLanes) {
    Target targets[kSteps];
    uint32_t escaped = 0;  // a bit a step
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const Target target = targets[i] = next[i];
      next[i] = fetch();
      const uint32_t slot = __ldg(place.slots + target.row.table * 4096 + (state & 4095U));
      const uint32_t stepped = ((slot >> kBits & 4095U) + 1) * (state >> kBits) + (slot & 4095U);
      const bool takes = target.active && stepped < kLowerBound;
      const unsigned taking = __ballot_sync(kAll, takes);
      const int32_t from = next_word + count_below(taking, lane);
      next_word += __popc(taking);
      const uint32_t word = from <= last_word ? __ldg(place.words + min(from, last_word)) : 0;
      state = target.active ? (takes ? stepped << 16 | word : stepped) : state;
      const uint32_t symbol = slot >> 24;
      escaped |= target.active && symbol == 0 ? 1U << i : 0;
      const float value = value_of(static_cast<int32_t>(symbol) - kCentre, target.row.shift, place.step);
      if (target.active) place.numbers[target.number] = __float2bfloat16_rn(value);
    }
    if (__any_sync(kAll, escaped != 0)) in_range &= put_escapes(place, targets, escaped, lane, next_escape);
  }
  sound &= state == kLowerBound && next_word == place.word_count && next_escape == place.escape_count;
  const bool all_sound = __all_sync(kAll, sound);
  const bool all_in_range = __all_sync(kAll, in_range);
  if (lane == 0) {
    problems[stream] = !all_sound      ? StreamProblem::kUnsound
                       : !all_in_range ? StreamProblem::kEscapeOutOfRange
                                       : StreamProblem::kNone;
  }
}

size_t aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

struct StreamDecoder::Work {
  HostStaging in, out;
  DeviceBuffer there;
  std::vector<StreamProblem> problems;
  std::vector<size_t> decoded;  // the other streams were seen to be unsound
  const StreamProblem* results = nullptr;
  cuda::SideQueue side;  // ends first
};

StreamDecoder::StreamDecoder() {
  cuda::stream();
  work_ = std::make_unique<Work>();
}
StreamDecoder::~StreamDecoder() = default;

void StreamDecoder::start(std::span<const StreamToDecode> streams) {
  Work& work = *work_;
  work.side.wait("decoding of streams");
  work.problems.assign(streams.size(), StreamProblem::kNone);
  work.decoded.clear();
  // Places, then each stream's states and words, then its escapes: one copy for all.
  size_t bytes = aligned(streams.size() * sizeof(Place)) + 16;  // a word is read behind the last one
  for (const StreamToDecode& stream : streams) {
    bytes += aligned(stream.stream.rans.size()) + aligned(stream.stream.escapes.size());
  }
  std::byte* const here = staged(work.in, bytes);
  std::byte* const there = grown(work.there, bytes);
  size_t next = aligned(streams.size() * sizeof(Place));
  for (size_t i = 0; i < streams.size(); ++i) {
    const StreamToDecode& stream = streams[i];
    const auto [rans, escapes] = stream.stream;
    require(stream.numbers.device == Device::kGpu && stream.numbers.dtype == DType::kBF16 &&
                stream.numbers.columns >= stream.row_count,
            "StreamDecoder: numbers ", stream.numbers, " for ", stream.row_count, " rows");
    if (rans.size() < kStateBytes || rans.size() % 2 != 0 || escapes.size() % 4 != 0) {
      work.problems[i] = StreamProblem::kUnsound;
      continue;
    }
    const Place place{.states = reinterpret_cast<const uint32_t*>(there + next),
                      .words = reinterpret_cast<const uint16_t*>(there + next + kStateBytes),
                      .escapes = reinterpret_cast<const int32_t*>(there + next + aligned(rans.size())),
                      .row_tables = stream.rows.rows,
                      .slots = reinterpret_cast<const uint32_t*>(stream.rows.tables->slots()),
                      .numbers = static_cast<__nv_bfloat16*>(stream.numbers.data),
                      .stride = stream.numbers.row_stride,
                      .step = stream.rows.step,
                      .word_count = static_cast<int32_t>((rans.size() - kStateBytes) / 2),
                      .escape_count = static_cast<int32_t>(escapes.size() / 4),
                      .rows = static_cast<int32_t>(stream.row_count),
                      .columns = static_cast<int32_t>(stream.numbers.rows)};
    std::memcpy(here + work.decoded.size() * sizeof place, &place, sizeof place);
    std::ranges::copy(rans, here + next);
    next += aligned(rans.size());
    std::ranges::copy(escapes, here + next);
    next += aligned(escapes.size());
    work.decoded.push_back(i);
  }
  if (work.decoded.empty()) return;
  auto* const results = reinterpret_cast<StreamProblem*>(staged(work.out, work.decoded.size()));
  work.results = results;
  work.side.begin();
  check(cudaMemcpyAsync(there, here, next, cudaMemcpyHostToDevice, work.side.stream()), "copy");
  decode_kernel<<<blocks_of(work.decoded.size()), kThreadsOfBlock, 0, work.side.stream()>>>(
      reinterpret_cast<const Place*>(there), static_cast<unsigned>(work.decoded.size()), results);
  cuda::check_launch("decoding of streams");
}

bool StreamDecoder::finished() const { return work_->side.idle(); }
void StreamDecoder::abandon() noexcept { work_->side.wait_quietly(); }
size_t StreamDecoder::bytes() const { return work_->in.size() + work_->out.size() + work_->there.size(); }

std::vector<StreamProblem> StreamDecoder::finish() {
  Work& work = *work_;
  work.side.wait("decoding of streams");
  for (size_t i = 0; i < work.decoded.size(); ++i) work.problems[work.decoded[i]] = work.results[i];
  work.decoded.clear();
  return std::move(work.problems);
}

}  // namespace scd::kernels
