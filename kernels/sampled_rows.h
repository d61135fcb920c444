// Tokens of rows of logits, sampled behind what is queued: ops queued after them read them before the host knows them,
// so that a GPU need not wait for the host between two steps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/device.h"
#include "kernels/queue_point.h"
#include "kernels/sampling.h"

namespace scd::kernels {

class SampledRows {
 public:
  // As sample_rows(), and on a GPU without waiting but for what it sampled last: options and random numbers are read at
  // once, the logits in their turn.
  void queue(ConstMatrix logits, std::span<const SamplingOptions> options, std::span<const double> uniforms);
  // Waits until they are sampled. [rows], until the next queue().
  std::span<const int32_t> ids() const;

  int64_t rows() const { return rows_; }
  // Where ops queued after queue() read them, on its device.
  const int32_t* queued_ids() const { return ids_; }

 private:
  HostStaging options_memory_, ids_memory_;  // page-locked: a GPU reads and writes them
  std::vector<int32_t> ids_of_cpu_;
  int32_t* ids_ = nullptr;  // of one or the other
  int64_t rows_ = 0;
  QueuePoint sampled_;
};

}  // namespace scd::kernels
