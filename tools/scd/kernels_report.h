// What `scd bench kernels` prints and writes: an op a row, beside its limit and, where PyTorch ran, PyTorch's time of
// it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/scd/report.h"
#include "tools/scd/torch_times.h"

namespace scd {

struct MeasuredOp {
  std::string name;
  double ms = 0.0;
  double rate = 0.0;
  std::string unit;    // of the rate and its limit, as a key of JSON
  double limit = 0.0;  // measured in the same run
};

// PyTorch's best time of an op, the ratio of ours to it, and which of its kernels that was, the others in brackets; ops
// that PyTorch alone measured come last. Without these columns where it measured none.
TextTable kernels_table(const std::vector<MeasuredOp>& ops, const TorchTimes& torch);

// The same as rows of a report, with every time of PyTorch's: {"op", "total_ms", unit, "limit", "limit_share", "torch":
// version, "torch_ms", "ratio_to_torch", "torch_kernel", "torch_kernels": {kernel: ms}}.
std::vector<nlohmann::ordered_json> kernels_rows(const std::vector<MeasuredOp>& ops, const TorchTimes& torch);

}  // namespace scd
