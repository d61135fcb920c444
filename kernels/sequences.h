// How ops are told which token of which sequence each row of a ragged batch is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace scd::kernels {

// One sequence of a ragged batch. Its rows in the batch are [first_row, first_row + rows); the row i is the token at
// position first_position + i. page_ids[p / page_tokens] is the page of position p.
struct SequenceRows {
  std::span<const int32_t> page_ids;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_position = 0;
};

// Numbers of a batch. Ops check and the CPU reads those on the host; CUDA reads `device` where it is given and else
// sends them for the one call.
struct Indices {
  std::span<const int32_t> host;
  const int32_t* device = nullptr;

  Indices() = default;
  Indices(std::span<const int32_t> on_host, const int32_t* on_device = nullptr) : host(on_host), device(on_device) {}
  Indices(const std::vector<int32_t>& on_host) : host(on_host) {}
  int64_t size() const { return static_cast<int64_t>(host.size()); }
};

// Rows of queries that one block of the attention on CUDA takes.
inline constexpr int64_t kQueryTile = 128;

// What CUDA keeps of a ragged batch, all int32 on the device.
struct DeviceSequences {
  const int32_t* page_ids = nullptr;  // [count, page_stride]
  int64_t page_stride = 0;
  const int32_t* row_sequence = nullptr;    // [rows]: which sequence a row belongs to
  const int32_t* row_position = nullptr;    // [rows]: its position there
  const int32_t* first_row = nullptr;       // [count]
  const int32_t* row_count = nullptr;       // [count]
  const int32_t* first_position = nullptr;  // [count]
  const int32_t* tiles = nullptr;           // [tile_count, 2]: sequence, first row of the tile within it
  int64_t tile_count = 0;
  int64_t count = 0;
  int64_t longest_rows = 0;
};

struct Sequences {
  std::span<const SequenceRows> host;
  const DeviceSequences* device = nullptr;

  Sequences() = default;
  Sequences(std::span<const SequenceRows> on_host, const DeviceSequences* on_device = nullptr)
      : host(on_host), device(on_device) {}
  Sequences(const SequenceRows* first, size_t count) : host(first, count) {}
  Sequences(const std::vector<SequenceRows>& on_host) : host(on_host) {}
};

}  // namespace scd::kernels
