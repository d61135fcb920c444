// Numbers to entropy-coded streams and back on a GPU, so that the bus carries bytes and the host touches no symbol: the
// quantiser and the rANS coder of codec rd, one kernel each way. The reference is on the CPU
// (common/codec/rd/rd_quantiser.h, common/codec/entropy/rans.h): equal numbers give the same bytes, equal bytes the
// same numbers, rounded to BF16. A warp works on a stream, each of 16 lanes on a state of its own; what bounds it is
// the chain from one state to the next, so many streams take as long as one.
// CUDA only: a build without it throws std::invalid_argument.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "kernels/matrix.h"

namespace scd::kernels {

// Static tables of the coder, on the GPU. Symbols are bytes, an integer plus 128; symbol 0 says that the integer stands
// among the stream's escapes.
class StreamTables {
 public:
  // ranges [tables, 256]: start << 16 | frequency of a symbol, frequencies of a table sum to 4096, that of symbol 0 is
  // not 0; slots [tables, 4096]: symbol << 24 | (frequency - 1) << 12 | distance from its start. On the host.
  StreamTables(std::span<const uint32_t> ranges, std::span<const uint32_t> slots);

  const std::byte* ranges() const { return ranges_.data(); }  // pairs of a range and floor(2^32 / frequency)
  const std::byte* slots() const { return slots_.data(); }

 private:
  DeviceBuffer ranges_, slots_;
};

// What codes a row of a stream's matrix.
struct StreamRow {
  int32_t table = 0;
  float shift = 0;  // where numbers lie in their cell, in steps from its centre
};

// Of all rows, on the GPU, and one quantiser step for all.
struct StreamRows {
  const StreamTables* tables = nullptr;
  const StreamRow* rows = nullptr;
  float step = 0;
  const float* offsets = nullptr;  // by row: the encoder adds them to its numbers first; null: none
};

// In host memory. rans: 16 states of 4 bytes, then words of 2; escapes: int32, in the order of their symbols.
struct CodedStream {
  std::span<const std::byte> rans;
  std::span<const std::byte> escapes;
};

// Rows and columns of a matrix that are a stream, which goes through them row by row.
struct StreamPart {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_column = 0;
  int64_t columns = 0;
};

// Codes parts of a matrix, beside what its thread queues meanwhile. Its memory grows and is kept.
class StreamEncoder {
 public:
  StreamEncoder();
  StreamEncoder(StreamEncoder&&) noexcept;
  StreamEncoder& operator=(StreamEncoder&&) noexcept;
  ~StreamEncoder();

  // Where the numbers are to be put, [rows, columns] F32 on the GPU. Not between start() and finish().
  Matrix numbers(int64_t rows, int64_t columns);
  // Makes each part a stream; together they are the matrix. Returns at once.
  void start(std::span<const StreamPart> parts, const StreamRows& rows);
  // Whether finish() would not wait.
  bool finished() const;
  // Waits; the streams stay valid until the next start(). A stream without states: more than a quarter of its numbers
  // escape, for which there is no room.
  std::vector<CodedStream> finish();
  size_t bytes() const;  // of memory, on both sides

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

enum class StreamProblem : uint8_t { kNone, kUnsound, kEscapeOutOfRange };

// A stream and where its numbers go: into rows [0, columns of the stream's matrix) and columns [0, row_count) of
// `numbers`, BF16 on the GPU: transposed, a token's components side by side.
struct StreamToDecode {
  CodedStream stream;
  StreamRows rows;
  int64_t row_count = 0;
  Matrix numbers;
};

// Decodes streams side by side, beside what its thread queues meanwhile. Its memory grows and is kept.
class StreamDecoder {
 public:
  StreamDecoder();
  ~StreamDecoder();

  // Untrusted bytes, copied here; nothing is read or written out of bounds. Begins behind what the thread has queued,
  // and returns at once. Not between start() and finish().
  void start(std::span<const StreamToDecode> streams);
  // Whether finish() would not wait.
  bool finished() const;
  // Waits. By stream: what is wrong with it, in which case its numbers mean nothing.
  std::vector<StreamProblem> finish();
  // Waits too, whatever became of the streams.
  void abandon() noexcept;
  size_t bytes() const;  // of memory, on both sides

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

}  // namespace scd::kernels
