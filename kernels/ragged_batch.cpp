#include "kernels/ragged_batch.h"

#include <algorithm>
#include <bit>

#include "kernels/dispatch.h"
#include "kernels/require.h"

namespace scd::kernels {
namespace {

// Where each array stands in the packed numbers.
struct Layout {
  int64_t ids, positions, row_sequence, first_row, row_count, first_position, tiles, page_ids, end;

  Layout(int64_t rows, int64_t sequences, int64_t pages) {
    int64_t at = 0;
    const auto take = [&at](int64_t count) {
      constexpr int64_t kAligned = 4;  // 16 bytes
      const int64_t begin = at;
      at += (count + kAligned - 1) / kAligned * kAligned;
      return begin;
    };
    ids = take(rows);
    positions = take(rows);
    row_sequence = take(rows);
    first_row = take(sequences);
    row_count = take(sequences);
    first_position = take(sequences);
    tiles = take(2 * (rows / kQueryTile + sequences));
    page_ids = take(sequences * pages);
    end = at;
  }
};

int64_t longest_table(std::span<const SequenceRows> sequences) {
  int64_t pages = 0;
  for (const SequenceRows& sequence : sequences) {
    pages = std::max(pages, static_cast<int64_t>(sequence.page_ids.size()));
  }
  return pages;
}

}  // namespace

void RaggedBatch::reserve(int64_t rows, int64_t sequences, int64_t pages) {
  if (rows <= row_capacity_ && sequences <= sequence_capacity_ && pages <= page_capacity_) return;
  const int64_t row_room = std::max(row_capacity_, rows);
  const int64_t sequence_room = std::max(sequence_capacity_, sequences);
  // In powers of two: a growing context moves the copy seldom.
  const int64_t page_room = std::max(page_capacity_, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(pages))));
  if (device_ == Device::kGpu) {
    row_capacity_ = sequence_capacity_ = page_capacity_ = 0;  // should the memory not suffice
    memory_ = DeviceBuffer();
    ++moves_;
    const Layout layout(row_room, sequence_room, page_room);
    memory_ = DeviceBuffer(Placement::workspace(device_), static_cast<size_t>(layout.end) * sizeof(int32_t));
    packed_.resize(static_cast<size_t>(layout.end));
    pages_there_.assign(static_cast<size_t>(sequence_room), 0);
  }
  row_capacity_ = row_room;
  sequence_capacity_ = sequence_room;
  page_capacity_ = page_room;
}

void RaggedBatch::assign(std::span<const int32_t> ids, std::span<const SequenceRows> sequences) {
  sequences_.assign(sequences.begin(), sequences.end());
  ids_.assign(ids.begin(), ids.end());
  positions_.clear();
  for (const SequenceRows& sequence : sequences) {
    require(sequence.first_row == rows(), "a ragged batch: a sequence begins at row ", sequence.first_row, ", not at ",
            rows());
    for (int64_t i = 0; i < sequence.rows; ++i) {
      positions_.push_back(static_cast<int32_t>(sequence.first_position + i));
    }
  }
  require(ids.empty() || static_cast<int64_t>(ids.size()) == rows(),
          "a ragged batch: ", static_cast<int64_t>(ids.size()), " ids for ", rows(), " rows");
  reserve(rows(), static_cast<int64_t>(sequences.size()), longest_table(sequences));
  if (device_ == Device::kGpu) upload();
}

void RaggedBatch::take_ids(const SampledRows& sampled) {
  require(sampled.rows() == rows() && ids_.size() == static_cast<size_t>(rows()), "a ragged batch: ", sampled.rows(),
          " sampled ids for ", rows(), " rows");
  if (device_ == Device::kCpu) return static_cast<void>(std::ranges::copy(sampled.ids(), ids_.begin()));
  SCD_ON(device_, cuda::upload_queued({sampled.queued_ids(), ids_.size()}, memory_.data()), static_cast<void>(0));
}

void RaggedBatch::upload() {
  const Layout layout(row_capacity_, sequence_capacity_, page_capacity_);
  int32_t* packed = packed_.data();
  std::ranges::copy(ids_, packed + layout.ids);
  std::ranges::copy(positions_, packed + layout.positions);
  int64_t tiles = 0;
  int64_t longest = 0;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const SequenceRows& sequence = sequences_[s];
    const auto index = static_cast<int32_t>(s);
    std::fill_n(packed + layout.row_sequence + sequence.first_row, sequence.rows, index);
    packed[layout.first_row + index] = static_cast<int32_t>(sequence.first_row);
    packed[layout.row_count + index] = static_cast<int32_t>(sequence.rows);
    packed[layout.first_position + index] = static_cast<int32_t>(sequence.first_position);
    for (int64_t first = 0; first < sequence.rows; first += kQueryTile, ++tiles) {
      packed[layout.tiles + 2 * tiles] = index;
      packed[layout.tiles + 2 * tiles + 1] = static_cast<int32_t>(first);
    }
    longest = std::max(longest, sequence.rows);
  }
  kernels::send(std::span(packed_).first(static_cast<size_t>(layout.page_ids)), device_, memory_.data());
  for (size_t s = 0; s < sequences_.size(); ++s) {
    send_pages(s, layout.page_ids + static_cast<int64_t>(s) * page_capacity_);
  }
  const auto* at = reinterpret_cast<const int32_t*>(memory_.data());
  on_device_ = {.page_ids = at + layout.page_ids,
                .page_stride = page_capacity_,
                .row_sequence = at + layout.row_sequence,
                .row_position = at + layout.positions,
                .first_row = at + layout.first_row,
                .row_count = at + layout.row_count,
                .first_position = at + layout.first_position,
                .tiles = at + layout.tiles,
                .tile_count = tiles,
                .count = static_cast<int64_t>(sequences_.size()),
                .longest_rows = longest};
}

// A step of decoding changes the numbers of its rows, which are few, and a page id now and then; page tables of long
// contexts are many times as large.
void RaggedBatch::send_pages(size_t sequence, int64_t at) {
  const std::span<const int32_t> ids = sequences_[sequence].page_ids;
  const auto place = std::span(packed_).subspan(static_cast<size_t>(at), ids.size());
  size_t& there = pages_there_[sequence];
  const size_t known = std::min(there, ids.size());
  const auto same = std::ranges::mismatch(ids.first(known), place.first(known)).in1 - ids.begin();
  there = static_cast<size_t>(same);
  std::ranges::copy(ids.subspan(there), place.begin() + same);
  kernels::send(place.subspan(there), device_, memory_.data() + static_cast<size_t>(at + same) * sizeof(int32_t));
  there = ids.size();
}

Indices RaggedBatch::ids() const {
  return {ids_, device_ == Device::kGpu ? reinterpret_cast<const int32_t*>(memory_.data()) : nullptr};
}

Indices RaggedBatch::positions() const {
  return {positions_, device_ == Device::kGpu ? on_device_.row_position : nullptr};
}

Sequences RaggedBatch::sequences() const { return {sequences_, device_ == Device::kGpu ? &on_device_ : nullptr}; }

}  // namespace scd::kernels
