// Which rows of a pass belong to which adapter, and their terms in its linear layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/model/adapter.h"
#include "kernels/grow_buffer.h"

namespace scd {

// Neighbouring rows of one sequence.
struct AdapterRun {
  const Adapter* adapter = nullptr;  // null: the model as it was loaded
  int64_t rows = 0;
};

class AdapterRows {
 public:
  // Runs in the order of their rows; adapters outlive what follows.
  void assign(std::span<const AdapterRun> runs, kernels::Device device);
  bool empty() const { return groups_.empty(); }

  // y += what each row's adapter adds to the linear layer of x.
  void add(int32_t layer, AdaptedLinear linear, const kernels::ConstMatrix& x, const kernels::Matrix& y);
  // The same for logits: row i of x and y is the pass's row chosen_rows[i].
  void add_to_logits(std::span<const int64_t> chosen_rows, const kernels::ConstMatrix& x, const kernels::Matrix& y);

 private:
  struct Group {
    const Adapter* adapter = nullptr;
    int64_t first = 0;  // in rows_
    int64_t count = 0;
  };
  kernels::Indices rows_of(const Group& group) const;

  std::vector<Group> groups_;
  std::vector<int32_t> rows_;  // group by group, ascending within one
  const int32_t* on_device_ = nullptr;
  kernels::GrowBuffer device_memory_;
  std::vector<kernels::LowRankGroup> terms_;  // of one call; kept for its memory
};

}  // namespace scd
