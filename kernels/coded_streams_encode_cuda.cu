#include <cstring>

#include "kernels/coded_streams_cuda.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

using namespace cuda::streams;
using cuda::check;

constexpr int32_t kLargestSymbol = 127;
constexpr float kLargestMagnitude = 1e9f;
constexpr float kBelowRounding = 1 - 0.6f;  // the reference rounds up from .6 on
constexpr int64_t kEscapeShare = 4;         // one in so many numbers may escape

// Where a stream's numbers are, and how many the streams before it have.
struct Part {
  int32_t first_row;
  int32_t rows;
  int32_t first_column;
  int32_t columns;
  int64_t before;
};

struct StreamEnd {
  int32_t words;
  int32_t escapes;  // negative: more than there is room for
};

__host__ __device__ inline int64_t escape_room(int64_t numbers) { return (numbers + kEscapeShare - 1) / kEscapeShare; }
// Of the bytes before a stream's own in host memory; for so many numbers and streams before it.
__host__ __device__ inline int64_t slot_offset(int64_t numbers_before, int64_t streams_before) {
  return numbers_before * 2 + (numbers_before + kEscapeShare * streams_before) +
         streams_before * static_cast<int64_t>(kStateBytes + sizeof(int32_t));
}

__device__ inline int32_t integer_of(float value, float step) {
  const float scaled = __fadd_rn(__fdiv_rn(fabsf(value), step), kBelowRounding);
  const auto magnitude = static_cast<int32_t>(scaled < kLargestMagnitude ? scaled : kLargestMagnitude);
  return value < 0 ? -magnitude : magnitude;
}

__device__ inline int count_above(unsigned mask, unsigned lane) { return __popc(mask >> lane >> 1); }

struct EncodeArgs {
  const float* numbers;
  int64_t stride;
  const StreamRow* row_tables;
  const uint2* ranges;
  float step;
  const float* offsets;    // of the rows, or null
  const uint8_t* symbols;  // of the numbers, row by row
};

__device__ inline int32_t integer_at(const EncodeArgs& args, int64_t row, int64_t column) {
  const float number = args.numbers[row * args.stride + column];
  return integer_of(args.offsets == nullptr ? number : __fadd_rn(number, __ldg(args.offsets + row)), args.step);
}

// 0 where the integer has no symbol. A thread a number.
__global__ void quantise_kernel(EncodeArgs args, int columns, uint8_t* symbols) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  if (column >= columns) return;
  const int32_t integer = integer_at(args, row, column);
  const int32_t symbol = abs(integer) <= kLargestSymbol ? integer + kCentre : 0;
  const bool known = (args.ranges[args.row_tables[row].table * 256 + symbol].x & 0xFFFFU) != 0;
  symbols[int64_t{row} * columns + column] = static_cast<uint8_t>(known ? symbol : 0);
}

// What a step of the encoder needs, in two fetches: the symbol and its row's table, then its range.
struct Symbol {
  int32_t entry;  // of the tables; a multiple of 256 where the number escapes
  bool active;
};
struct Step {
  uint2 range;
  bool active;
  bool escapes;
};

__device__ inline Symbol symbol_at(const EncodeArgs& args, const Part& part, int64_t columns, const Cursor& at,
                                   bool codes) {
  const bool active = codes && at.inside();
  const int32_t row = part.first_row + (active ? at.row : 0);
  const int32_t column = part.first_column + (active ? at.column : 0);
  return {__ldg(&args.row_tables[row].table) * 256 + __ldg(args.symbols + row * columns + column), active};
}

// By a warp, in pairs: the bus is slow with less.
__device__ inline void copy_words(const uint16_t* from, uint32_t* to, int count, unsigned lane) {
  constexpr int kTogether = 8;  // whose loads are under way together
  const int pairs = (count + 1) / 2;
  for (int first = static_cast<int>(lane); first < pairs; first += kTogether * kWarp) {
    uint32_t pair[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int word = 2 * (first + i * static_cast<int>(kWarp));
      pair[i] = word < count ? from[word] : 0;
      if (word + 1 < count) pair[i] |= uint32_t{from[word + 1]} << 16;
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int at = first + i * static_cast<int>(kWarp);
      if (at < pairs) to[at] = pair[i];
    }
  }
}

// By a warp: words, then escapes at a multiple of 4 bytes.
__device__ inline void copy_out(const uint16_t* words, const int32_t* escapes, StreamEnd count, std::byte* to,
                                unsigned lane) {
  copy_words(words, reinterpret_cast<uint32_t*>(to), count.words, lane);
  auto* const escapes_to = reinterpret_cast<int32_t*>(to + (count.words + 1) / 2 * 4);
  for (int i = static_cast<int>(lane); i < count.escapes; i += kWarp) escapes_to[i] = escapes[i];
}

// Of a step whose number escapes in some lanes: into the scratch, which is filled from its end.
__device__ inline void put_escape(const EncodeArgs& args, const Part& part, int32_t group, bool escapes, unsigned lane,
                                  int32_t* scratch, int32_t& first) {
  const unsigned escaping = __ballot_sync(kAll, escapes);
  if (escaping == 0) return;
  const int32_t place = first - 1 - count_above(escaping, lane);
  const uint32_t index = group * kLanes + lane, width = part.columns;
  if (escapes && place >= 0) {
    scratch[place] = integer_at(args, part.first_row + index / width, part.first_column + index % width);
  }
  first -= __popc(escaping);
}

// words and escapes: scratch of the stream, filled from its end.
__global__ void __launch_bounds__(kThreadsOfBlock)
    encode_kernel(EncodeArgs args, int columns, const Part* parts, unsigned streams, uint16_t* all_words,
                  int32_t* all_escapes, std::byte* out, StreamEnd* ends) {
  const unsigned lane = threadIdx.x % kWarp, stream = stream_of_warp();
  if (stream >= streams) return;
  const Part part = parts[stream];
  const int64_t before = part.before;
  const int32_t count = part.rows * part.columns;
  uint16_t* const words = all_words + before;
  const int64_t room = escape_room(count);
  int32_t* const escapes = all_escapes + before / kEscapeShare + stream;
  int32_t first_word = count;
  auto first_escape = static_cast<int32_t>(room);
  uint32_t state = kLowerBound;
  const bool codes = lane < kLanes;
  const int32_t groups = (count + kLanes - 1) / kLanes;
  Cursor at(part.rows, part.columns, (groups - 1) * kLanes + lane % kLanes);
  Symbol symbols[kSteps];
  Step next[kSteps];
  const auto fetch_symbols = [&] {
#pragma unroll
    for (int i = 0; i < kSteps; ++i, at.back()) {
      symbols[i] = symbol_at(args, part, columns, at, codes);
    }
  };
  const auto fetch_ranges = [&] {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const Symbol& symbol = symbols[i];
      next[i] = {__ldg(args.ranges + symbol.entry), symbol.active, symbol.active && symbol.entry % 256 == 0};
    }
  };
  if (groups > 0) {
    fetch_symbols();
    fetch_ranges();
    fetch_symbols();
  }
  for (int32_t group = groups - 1; group >= 0; group -= kSteps) {
    Step steps[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) steps[i] = next[i];
    fetch_ranges();
    fetch_symbols();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const Step& step = steps[i];
      const uint2 range = step.range;
      const uint32_t frequency = range.x & 0xFFFFU;
      const bool writes = step.active && frequency < 4096 && state >= frequency << (32 - kBits);
      const unsigned writing = __ballot_sync(kAll, writes);
      if (writes) {
        words[first_word - 1 - count_above(writing, lane)] = static_cast<uint16_t>(state);
        state >>= 16;
      }
      first_word -= __popc(writing);
      put_escape(args, part, group - i, step.escapes, lane, escapes, first_escape);
      uint32_t quotient = __umulhi(state, range.y);
      uint32_t rest = state - quotient * frequency;
      const bool over = rest >= frequency;
      rest -= over ? frequency : 0;
      quotient += over ? 1 : 0;
      state = step.active ? (quotient << kBits) + rest + (range.x >> 16) : state;
    }
  }
  const bool fits = first_escape >= 0;
  const StreamEnd end{count - first_word, fits ? static_cast<int32_t>(room - first_escape) : -1};
  if (lane == 0) ends[stream] = end;
  if (!fits) return;
  __syncwarp();
  std::byte* const slot = out + slot_offset(before, stream) / 4 * 4;
  if (codes) reinterpret_cast<uint32_t*>(slot)[lane] = state;
  copy_out(words + first_word, escapes + first_escape, end, slot + kStateBytes, lane);
}

}  // namespace

struct StreamEncoder::Work {
  DeviceBuffer numbers_memory, symbols, words, escapes, parts_memory;
  HostStaging out;
  Matrix numbers;
  std::vector<Part> parts;
  std::byte* host = nullptr;  // StreamEnd of every stream, then their bytes
  cuda::SideQueue side;       // ends first
};

StreamEncoder::StreamEncoder() {
  cuda::stream();
  work_ = std::make_unique<Work>();
}
StreamEncoder::StreamEncoder(StreamEncoder&&) noexcept = default;
StreamEncoder& StreamEncoder::operator=(StreamEncoder&&) noexcept = default;
StreamEncoder::~StreamEncoder() = default;

Matrix StreamEncoder::numbers(int64_t rows, int64_t columns) {
  work_->side.wait("coding of streams");  // which nobody may have waited for
  std::byte* memory = grown(work_->numbers_memory, static_cast<size_t>(rows * columns) * sizeof(float));
  work_->numbers = {memory, rows, columns, columns, DType::kF32, Device::kGpu};
  return work_->numbers;
}

void StreamEncoder::start(std::span<const StreamPart> parts, const StreamRows& rows) {
  Work& work = *work_;
  work.parts.clear();
  int64_t count = 0;
  for (const StreamPart& part : parts) {
    require(part.columns > 0 && part.first_row >= 0 && part.first_row + part.rows <= work.numbers.rows &&
                part.first_column >= 0 && part.first_column + part.columns <= work.numbers.columns,
            "StreamEncoder: rows from ", part.first_row, ", columns from ", part.first_column, ": ", part.rows, " x ",
            part.columns, " of ", work.numbers);
    work.parts.push_back({static_cast<int32_t>(part.first_row), static_cast<int32_t>(part.rows),
                          static_cast<int32_t>(part.first_column), static_cast<int32_t>(part.columns), count});
    count += part.rows * part.columns;
  }
  require(count == work.numbers.rows * work.numbers.columns, "StreamEncoder: parts of ", count, " numbers in all for ",
          work.numbers);
  const auto streams = static_cast<int64_t>(work.parts.size());
  std::byte* words = grown(work.words, static_cast<size_t>(count) * sizeof(uint16_t));
  std::byte* escapes = grown(work.escapes, static_cast<size_t>(count / kEscapeShare + streams + 1) * sizeof(int32_t));
  std::byte* places = grown(work.parts_memory, work.parts.size() * sizeof(Part));
  auto* const symbols = reinterpret_cast<uint8_t*>(grown(work.symbols, static_cast<size_t>(count)));
  const size_t head = work.parts.size() * sizeof(StreamEnd);
  work.host = staged(work.out, head + static_cast<size_t>(slot_offset(count, streams)));
  cuda::upload({reinterpret_cast<const int32_t*>(work.parts.data()), work.parts.size() * sizeof(Part) / 4}, places);
  work.side.begin();
  const EncodeArgs args{static_cast<const float*>(work.numbers.data),
                        work.numbers.row_stride,
                        rows.rows,
                        reinterpret_cast<const uint2*>(rows.tables->ranges()),
                        rows.step,
                        rows.offsets,
                        symbols};
  if (count > 0) {
    const dim3 grid(static_cast<unsigned>((work.numbers.columns + 255) / 256),
                    static_cast<unsigned>(work.numbers.rows));
    quantise_kernel<<<grid, 256, 0, work.side.stream()>>>(args, static_cast<int>(work.numbers.columns), symbols);
    cuda::check_launch("quantising");
  }
  if (streams > 0) {
    encode_kernel<<<blocks_of(work.parts.size()), kThreadsOfBlock, 0, work.side.stream()>>>(
        args, static_cast<int>(work.numbers.columns), reinterpret_cast<const Part*>(places),
        static_cast<unsigned>(streams), reinterpret_cast<uint16_t*>(words), reinterpret_cast<int32_t*>(escapes),
        work.host + head, reinterpret_cast<StreamEnd*>(work.host));
    cuda::check_launch("coding of streams");
  }
}

bool StreamEncoder::finished() const { return work_->side.idle(); }
size_t StreamEncoder::bytes() const {
  const Work& work = *work_;
  return work.numbers_memory.size() + work.symbols.size() + work.words.size() + work.escapes.size() +
         work.parts_memory.size() + work.out.size();
}

std::vector<CodedStream> StreamEncoder::finish() {
  Work& work = *work_;
  work.side.wait("coding of streams");
  std::vector<CodedStream> streams;
  const std::byte* bytes = work.host + work.parts.size() * sizeof(StreamEnd);
  for (size_t i = 0; i < work.parts.size(); ++i) {
    StreamEnd end;
    std::memcpy(&end, work.host + i * sizeof end, sizeof end);
    if (end.escapes < 0) {
      streams.emplace_back();
      continue;
    }
    const std::byte* slot = bytes + slot_offset(work.parts[i].before, static_cast<int64_t>(i)) / 4 * 4;
    const auto word_bytes = static_cast<size_t>(end.words) * sizeof(uint16_t);
    streams.push_back({{slot, kStateBytes + word_bytes},
                       {slot + kStateBytes + (word_bytes + 3) / 4 * 4, static_cast<size_t>(end.escapes) * 4}});
  }
  return streams;
}

}  // namespace scd::kernels
