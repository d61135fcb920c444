// Which rows of a pass belong to which adapter, and their terms in its linear layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/model/adapter.h"
#include "kernels/low_rank.h"

namespace scd {

// Neighbouring rows of one sequence.
struct AdapterRun {
  const Adapter* adapter = nullptr;  // null: the model as it was loaded
  int64_t rows = 0;
};

class AdapterRows {
 public:
  // Memory on a GPU for so many rows of steps that are recorded: it does not move while they stay within.
  void reserve(int64_t rows, kernels::Device device) { rows_.reserve(rows, device); }
  // Runs in the order of their rows; adapters outlive what follows. for_any: kernels::LowRankRows::assign().
  void assign(std::span<const AdapterRun> runs, kernels::Device device, bool for_any = false);

  // y += what each row's adapter adds to the linear layer of x.
  void add(int32_t layer, AdaptedLinear linear, const kernels::ConstMatrix& x, const kernels::Matrix& y);
  // The same for logits: row i of x and y is the pass's row chosen_rows[i].
  void add_to_logits(std::span<const int64_t> chosen_rows, const kernels::ConstMatrix& x, const kernels::Matrix& y);

 private:
  bool empty_ = true;
  std::vector<const kernels::LowRankSet*> sets_, chosen_sets_;
  kernels::LowRankRows rows_, chosen_;
};

}  // namespace scd
