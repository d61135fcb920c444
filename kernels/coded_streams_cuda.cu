// A warp a stream; its first 16 lanes hold the coder's states. Numbers, tables and places of several steps are fetched
// together, so that the chain from state to state is all that a step waits for.
#include <algorithm>
#include <cstring>

#include "kernels/coded_streams.h"
#include "kernels/cuda_common.cuh"
#include "kernels/cuda_kernels.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

using cuda::check;

constexpr int kLanes = 16;
constexpr unsigned kWarp = 32;
constexpr unsigned kAll = 0xFFFFFFFFU;
constexpr int kSteps = 8;  // whose loads are under way together
constexpr uint32_t kLowerBound = 1U << 16;
constexpr int kBits = 12;
constexpr int32_t kCentre = 128;
constexpr int32_t kLargestSymbol = 127;
constexpr float kLargestMagnitude = 1e9f;
constexpr int32_t kLargestEscaped = 1'000'000'000;
constexpr float kBelowRounding = 1 - 0.6f;  // the reference rounds up from .6 on
constexpr size_t kStateBytes = kLanes * sizeof(uint32_t);
constexpr int64_t kEscapeShare = 4;  // one in so many numbers may escape

// Of a chunk in what the encoder writes.
struct Chunk {
  int32_t first_column;
  int32_t columns;
};

struct StreamEnd {
  int32_t words;
  int32_t escapes;  // negative: more than there is room for
};

__host__ __device__ inline int64_t escape_room(int64_t numbers) { return (numbers + kEscapeShare - 1) / kEscapeShare; }
// Of the bytes before a chunk's own in host memory; for so many numbers before it.
__host__ __device__ inline int64_t slot_offset(int64_t numbers_before, int64_t chunks_before) {
  return numbers_before * 2 + (numbers_before + kEscapeShare * chunks_before) +
         chunks_before * static_cast<int64_t>(kStateBytes + sizeof(int32_t));
}

__device__ inline int32_t integer_of(float value, float step) {
  const float scaled = __fadd_rn(__fdiv_rn(fabsf(value), step), kBelowRounding);
  const auto magnitude = static_cast<int32_t>(scaled < kLargestMagnitude ? scaled : kLargestMagnitude);
  return value < 0 ? -magnitude : magnitude;
}

__device__ inline float value_of(int32_t integer, float shift, float step) {
  const float signed_shift = integer > 0 ? shift : integer < 0 ? -shift : 0.0f;
  return __fmul_rn(__fadd_rn(static_cast<float>(integer), signed_shift), step);
}

__device__ inline int count_above(unsigned mask, unsigned lane) { return __popc(mask >> (lane + 1)); }
__device__ inline int count_below(unsigned mask, unsigned lane) { return __popc(mask & ((1U << lane) - 1)); }

// Goes through the numbers of a stream row by row, 16 lanes side by side: where this lane's number of the current group
// stands. Groups beyond either end are at the first number and not `inside`.
struct Cursor {
  int64_t count;
  int64_t index;
  int32_t row, column, columns, row_step, column_step;

  __device__ Cursor(int32_t rows, int32_t of_columns, int64_t first) : count(int64_t{rows} * of_columns), index(first) {
    columns = of_columns;
    row = static_cast<int32_t>(index / columns);
    column = static_cast<int32_t>(index - int64_t{row} * columns);
    row_step = kLanes / columns;
    column_step = kLanes % columns;
  }
  __device__ bool inside() const { return index >= 0 && index < count; }
  __device__ void forward() {
    index += kLanes;
    row += row_step;
    column += column_step;
    const bool over = column >= columns;
    column -= over ? columns : 0;
    row += over ? 1 : 0;
  }
  __device__ void back() {
    index -= kLanes;
    row -= row_step;
    column -= column_step;
    const bool under = column < 0;
    column += under ? columns : 0;
    row -= under ? 1 : 0;
  }
};

struct EncodeArgs {
  const float* numbers;
  int64_t stride;
  int rows;
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

__device__ inline Symbol symbol_at(const EncodeArgs& args, int64_t first, int64_t columns, const Cursor& at,
                                   bool codes) {
  const bool active = codes && at.inside();
  const int32_t row = active ? at.row : 0;
  const int32_t column = active ? at.column : 0;
  return {__ldg(&args.row_tables[row].table) * 256 + __ldg(args.symbols + row * columns + first + column), active};
}

// words and escapes: scratch of the chunk, filled from its end.
__global__ void encode_kernel(EncodeArgs args, int columns, const Chunk* chunks, uint16_t* all_words,
                              int32_t* all_escapes, std::byte* out, StreamEnd* ends) {
  const unsigned lane = threadIdx.x;
  const Chunk chunk = chunks[blockIdx.x];
  const int64_t before = int64_t{args.rows} * chunk.first_column;
  const int64_t count = int64_t{args.rows} * chunk.columns;
  uint16_t* const words = all_words + before;
  const int64_t room = escape_room(count);
  int32_t* const escapes = all_escapes + before / kEscapeShare + blockIdx.x;
  auto first_word = static_cast<int32_t>(count), first_escape = static_cast<int32_t>(room);
  uint32_t state = kLowerBound;
  const bool codes = lane < kLanes;
  const auto groups = static_cast<int32_t>((count + kLanes - 1) / kLanes);
  Cursor at(args.rows, chunk.columns, (groups - 1) * kLanes + lane % kLanes);
  Symbol symbols[kSteps];
  Step next[kSteps];
  const auto fetch_symbols = [&] {
#pragma unroll
    for (int i = 0; i < kSteps; ++i, at.back()) {
      symbols[i] = symbol_at(args, chunk.first_column, columns, at, codes);
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
      const unsigned escaping = __ballot_sync(kAll, step.escapes);
      if (escaping != 0) {
        const int32_t place = first_escape - 1 - count_above(escaping, lane);
        const uint32_t index = (group - i) * kLanes + lane, width = chunk.columns;
        if (step.escapes && place >= 0) {
          escapes[place] = integer_at(args, index / width, chunk.first_column + index % width);
        }
        first_escape -= __popc(escaping);
      }
      uint32_t quotient = __umulhi(state, range.y);
      uint32_t rest = state - quotient * frequency;
      const bool over = rest >= frequency;
      rest -= over ? frequency : 0;
      quotient += over ? 1 : 0;
      state = step.active ? (quotient << kBits) + rest + (range.x >> 16) : state;
    }
  }
  const bool fits = first_escape >= 0;
  const auto word_count = static_cast<int32_t>(count - first_word);
  const auto escape_count = static_cast<int32_t>(room - first_escape);
  if (lane == 0) ends[blockIdx.x] = {word_count, fits ? escape_count : -1};
  if (!fits) return;
  __syncwarp();
  std::byte* const slot = out + slot_offset(before, blockIdx.x) / 4 * 4;
  if (codes) reinterpret_cast<uint32_t*>(slot)[lane] = state;
  auto* const to = reinterpret_cast<uint16_t*>(slot + kStateBytes);
#pragma unroll 4
  for (int i = static_cast<int>(lane); i < word_count; i += kWarp) to[i] = words[first_word + i];
  auto* const escapes_to = reinterpret_cast<int32_t*>(slot + kStateBytes + (word_count + 1) / 2 * 4);
  for (int i = static_cast<int>(lane); i < escape_count; i += kWarp) escapes_to[i] = escapes[first_escape + i];
}

// Beside the thread's queue.
struct SideQueue {
  cudaStream_t stream = nullptr;
  SideQueue() {
    cuda::stream();
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  SideQueue(const SideQueue&) = delete;
  SideQueue& operator=(const SideQueue&) = delete;
  ~SideQueue() { cudaStreamDestroy(stream); }
};

struct Event {
  cudaEvent_t event = nullptr;
  Event() { check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event); }
};

std::byte* grown(DeviceBuffer& buffer, size_t bytes) {
  if (buffer.size() < bytes) {
    buffer = DeviceBuffer();
    buffer = DeviceBuffer(Device::kCuda, bytes + bytes / 4);
  }
  return buffer.data();
}

std::byte* staged(HostStaging& staging, size_t bytes) {
  return static_cast<std::byte*>(staging.matrix(1, static_cast<int64_t>((bytes + 3) / 4)).data);
}

}  // namespace

struct StreamEncoder::Work {
  DeviceBuffer numbers_memory, symbols, words, escapes, chunks_memory;
  HostStaging out;
  Matrix numbers;
  std::vector<Chunk> chunks;
  std::byte* host = nullptr;  // StreamEnd of every chunk, then their bytes
  Event queued, done;
  SideQueue side;
};

StreamEncoder::StreamEncoder() {
  cuda::stream();
  work_ = std::make_unique<Work>();
}
StreamEncoder::StreamEncoder(StreamEncoder&&) noexcept = default;
StreamEncoder& StreamEncoder::operator=(StreamEncoder&&) noexcept = default;
StreamEncoder::~StreamEncoder() {
  if (work_ != nullptr) cudaEventSynchronize(work_->done.event);
}

Matrix StreamEncoder::numbers(int64_t rows, int64_t columns) {
  check(cudaEventSynchronize(work_->done.event), "coding of streams");  // which nobody may have waited for
  std::byte* memory = grown(work_->numbers_memory, static_cast<size_t>(rows * columns) * sizeof(float));
  work_->numbers = {memory, rows, columns, columns, DType::kF32, Device::kCuda};
  return work_->numbers;
}

void StreamEncoder::start(std::span<const int64_t> chunk_columns, const StreamRows& rows) {
  Work& work = *work_;
  work.chunks.clear();
  int32_t column = 0;
  for (const int64_t columns : chunk_columns) {
    require(columns > 0, "StreamEncoder: a chunk of ", columns, " columns");
    work.chunks.push_back({column, static_cast<int32_t>(columns)});
    column += static_cast<int32_t>(columns);
  }
  require(column == work.numbers.columns, "StreamEncoder: chunks of ", int64_t{column}, " columns in all for ",
          work.numbers);
  const int64_t count = work.numbers.rows * work.numbers.columns;
  const auto chunks = static_cast<int64_t>(work.chunks.size());
  std::byte* words = grown(work.words, static_cast<size_t>(count) * sizeof(uint16_t));
  std::byte* escapes = grown(work.escapes, static_cast<size_t>(count / kEscapeShare + chunks + 1) * sizeof(int32_t));
  std::byte* places = grown(work.chunks_memory, work.chunks.size() * sizeof(Chunk));
  auto* const symbols = reinterpret_cast<uint8_t*>(grown(work.symbols, static_cast<size_t>(count)));
  const size_t head = work.chunks.size() * sizeof(StreamEnd);
  work.host = staged(work.out, head + static_cast<size_t>(slot_offset(count, chunks)));
  cuda::upload({reinterpret_cast<const int32_t*>(work.chunks.data()), work.chunks.size() * sizeof(Chunk) / 4}, places);
  check(cudaEventRecord(work.queued.event, cuda::stream()), "cudaEventRecord");
  check(cudaStreamWaitEvent(work.side.stream, work.queued.event), "cudaStreamWaitEvent");
  const EncodeArgs args{static_cast<const float*>(work.numbers.data),
                        work.numbers.row_stride,
                        static_cast<int>(work.numbers.rows),
                        rows.rows,
                        reinterpret_cast<const uint2*>(rows.tables->ranges()),
                        rows.step,
                        rows.offsets,
                        symbols};
  if (count > 0) {
    const dim3 grid(static_cast<unsigned>((work.numbers.columns + 255) / 256),
                    static_cast<unsigned>(work.numbers.rows));
    quantise_kernel<<<grid, 256, 0, work.side.stream>>>(args, static_cast<int>(work.numbers.columns), symbols);
    cuda::check_launch("quantising");
  }
  if (chunks > 0) {
    encode_kernel<<<static_cast<unsigned>(chunks), kWarp, 0, work.side.stream>>>(
        args, static_cast<int>(work.numbers.columns), reinterpret_cast<const Chunk*>(places),
        reinterpret_cast<uint16_t*>(words), reinterpret_cast<int32_t*>(escapes), work.host + head,
        reinterpret_cast<StreamEnd*>(work.host));
    cuda::check_launch("coding of streams");
  }
  check(cudaEventRecord(work.done.event, work.side.stream), "cudaEventRecord");
}

bool StreamEncoder::finished() const { return cudaEventQuery(work_->done.event) == cudaSuccess; }

std::vector<CodedStream> StreamEncoder::finish() {
  Work& work = *work_;
  check(cudaEventSynchronize(work.done.event), "coding of streams");
  std::vector<CodedStream> streams;
  const std::byte* bytes = work.host + work.chunks.size() * sizeof(StreamEnd);
  for (size_t i = 0; i < work.chunks.size(); ++i) {
    StreamEnd end;
    std::memcpy(&end, work.host + i * sizeof end, sizeof end);
    if (end.escapes < 0) return {};
    const int64_t before = work.numbers.rows * work.chunks[i].first_column;
    const std::byte* slot = bytes + slot_offset(before, static_cast<int64_t>(i)) / 4 * 4;
    const auto word_bytes = static_cast<size_t>(end.words) * sizeof(uint16_t);
    streams.push_back({{slot, kStateBytes + word_bytes},
                       {slot + kStateBytes + (word_bytes + 3) / 4 * 4, static_cast<size_t>(end.escapes) * 4}});
  }
  return streams;
}

namespace {

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

__global__ void decode_kernel(const Place* places, StreamProblem* problems) {
  const unsigned lane = threadIdx.x;
  const Place place = places[blockIdx.x];
  const bool codes = lane < kLanes;
  uint32_t state = codes ? place.states[lane] : kLowerBound;
  bool sound = state >= kLowerBound;
  bool in_range = true;
  int32_t next_word = 0, next_escape = 0;
  const int64_t count = int64_t{place.rows} * place.columns;
  Cursor at(place.rows, place.columns, lane % kLanes);
  Target next[kSteps];
  const auto fetch = [&] {
#pragma unroll
    for (int i = 0; i < kSteps; ++i, at.forward()) {
      const bool active = codes && at.inside();
      const int32_t row = active ? at.row : 0;
      next[i] = {place.row_tables[row], static_cast<int32_t>((active ? at.column : 0) * place.stride + row), active};
    }
  };
  if (count > 0) fetch();
  const int32_t last_word = max(place.word_count - 1, 0);
  for (int64_t first = 0; first < count; first += int64_t{kSteps} * kLanes) {
    Target targets[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) targets[i] = next[i];
    fetch();
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const Target& target = targets[i];
      const uint32_t slot = __ldg(place.slots + target.row.table * 4096 + (state & 4095U));
      const uint32_t stepped = ((slot >> kBits & 4095U) + 1) * (state >> kBits) + (slot & 4095U);
      const bool takes = target.active && stepped < kLowerBound;
      const unsigned taking = __ballot_sync(kAll, takes);
      const int32_t from = next_word + count_below(taking, lane);
      next_word += __popc(taking);
      const uint32_t word = from <= last_word ? __ldg(place.words + min(from, last_word)) : 0;
      state = target.active ? (takes ? stepped << 16 | word : stepped) : state;
      const uint32_t symbol = slot >> 24;
      const bool escapes = target.active && symbol == 0;
      const unsigned escaping = __ballot_sync(kAll, escapes);
      int32_t integer = static_cast<int32_t>(symbol) - kCentre;
      if (escaping != 0) {
        const int32_t escape = next_escape + count_below(escaping, lane);
        if (escapes) integer = escape < place.escape_count ? place.escapes[escape] : 0;
        next_escape += __popc(escaping);
        in_range &= integer >= -kLargestEscaped && integer <= kLargestEscaped;
      }
      if (target.active) {
        place.numbers[target.number] = __float2bfloat16_rn(value_of(integer, target.row.shift, place.step));
      }
    }
  }
  sound &= state == kLowerBound && next_word == place.word_count && next_escape == place.escape_count;
  const bool all_sound = __all_sync(kAll, sound);
  const bool all_in_range = __all_sync(kAll, in_range);
  if (lane == 0) {
    problems[blockIdx.x] = !all_sound      ? StreamProblem::kUnsound
                           : !all_in_range ? StreamProblem::kEscapeOutOfRange
                                           : StreamProblem::kNone;
  }
}

// What decode_streams() needs of memory, kept by its thread.
struct Decoding {
  HostStaging in, out;
  DeviceBuffer there;
};

size_t aligned(size_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

std::vector<StreamProblem> decode_streams(std::span<const StreamToDecode> streams) {
  std::vector<StreamProblem> problems(streams.size(), StreamProblem::kNone);
  thread_local Decoding memory;
  // Places, then each stream's states and words, then its escapes: one copy for all.
  size_t bytes = aligned(streams.size() * sizeof(Place)) + 16;  // a word is read behind the last one
  for (const StreamToDecode& stream : streams) {
    bytes += aligned(stream.stream.rans.size()) + aligned(stream.stream.escapes.size());
  }
  std::byte* const here = staged(memory.in, bytes);
  std::byte* const there = grown(memory.there, bytes);
  std::vector<size_t> decoded;  // the others are unsound already
  size_t next = aligned(streams.size() * sizeof(Place));
  for (size_t i = 0; i < streams.size(); ++i) {
    const StreamToDecode& stream = streams[i];
    const auto [rans, escapes] = stream.stream;
    require(stream.numbers.device == Device::kCuda && stream.numbers.dtype == DType::kBF16 &&
                stream.numbers.columns >= stream.row_count,
            "decode_streams: numbers ", stream.numbers, " for ", stream.row_count, " rows");
    if (rans.size() < kStateBytes || rans.size() % 2 != 0 || escapes.size() % 4 != 0) {
      problems[i] = StreamProblem::kUnsound;
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
    std::memcpy(here + decoded.size() * sizeof place, &place, sizeof place);
    std::ranges::copy(rans, here + next);
    next += aligned(rans.size());
    std::ranges::copy(escapes, here + next);
    next += aligned(escapes.size());
    decoded.push_back(i);
  }
  if (decoded.empty()) return problems;
  auto* const results = reinterpret_cast<StreamProblem*>(staged(memory.out, decoded.size()));
  check(cudaMemcpyAsync(there, here, next, cudaMemcpyHostToDevice, cuda::stream()), "copy");
  decode_kernel<<<static_cast<unsigned>(decoded.size()), kWarp, 0, cuda::stream()>>>(
      reinterpret_cast<const Place*>(there), results);
  cuda::check_launch("decoding of streams");
  cuda::synchronize();
  for (size_t i = 0; i < decoded.size(); ++i) problems[decoded[i]] = results[i];
  return problems;
}

}  // namespace scd::kernels
