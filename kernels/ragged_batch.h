// A ragged batch of sequences over a paged cache, as the ops of one forward pass see it: which token of which sequence
// each row is. On CUDA it keeps a copy of its numbers there, at addresses and with strides that do not change while the
// batch's capacity holds: a captured graph can be replayed after assign(). Of the page tables only what is not there
// yet is sent.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "kernels/paged_kv.h"
#include "kernels/sampled_rows.h"

namespace scd::kernels {

class RaggedBatch {
 public:
  explicit RaggedBatch(Device device = Device::kCpu) : device_(device) {}

  // Room for so many rows, sequences and pages of the longest sequence; grows by itself otherwise.
  void reserve(int64_t rows, int64_t sequences, int64_t pages);
  // ids [rows] (may be empty: no embedding), sequences in the order of their rows. The spans of page ids are read here
  // and, on the CPU, by the ops.
  void assign(std::span<const int32_t> ids, std::span<const SequenceRows> sequences);
  // The rows' ids are those that were sampled, whether they are known yet or not: after assign(), which had others.
  void take_ids(const SampledRows& sampled);

  Device device() const { return device_; }
  // Counts how often the copy on the device has moved.
  int64_t moves() const { return moves_; }
  int64_t rows() const { return static_cast<int64_t>(positions_.size()); }
  Indices ids() const;        // [rows]
  Indices positions() const;  // [rows]
  Sequences sequences() const;

 private:
  void upload();
  void send_pages(size_t sequence, int64_t at);  // at: in packed_

  Device device_;
  std::vector<int32_t> ids_, positions_;
  std::vector<SequenceRows> sequences_;
  int64_t row_capacity_ = 0, sequence_capacity_ = 0, page_capacity_ = 0;
  std::vector<int32_t> packed_;      // as on the device: ids, positions, rows' sequences, sequences, tiles, page tables
  std::vector<size_t> pages_there_;  // of each sequence's place: so many page ids on the device are those of packed_
  DeviceBuffer memory_;
  int64_t moves_ = 0;
  DeviceSequences on_device_;
};

}  // namespace scd::kernels
