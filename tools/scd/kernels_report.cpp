#include "tools/scd/kernels_report.h"

#include <algorithm>

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

struct Op {
  std::string name;
  const MeasuredOp* ours = nullptr;  // null where PyTorch alone measured it
  std::vector<TorchTime> torch;      // soonest first

  bool both() const { return ours != nullptr && !torch.empty(); }
  double ratio() const { return ours->ms / torch.front().ms; }
};

// Ours in their order, then PyTorch's that are none of ours.
std::vector<Op> joined(const std::vector<MeasuredOp>& ours, const TorchTimes& torch) {
  std::vector<Op> ops;
  for (const MeasuredOp& op : ours) ops.push_back({op.name, &op, {}});
  for (const TorchTime& time : torch.rows) {
    if (std::ranges::find(ops, time.op, &Op::name) == ops.end()) ops.push_back({time.op, nullptr, {}});
    for (Op& op : ops) {
      if (op.name == time.op) op.torch.push_back(time);
    }
  }
  for (Op& op : ops) std::ranges::stable_sort(op.torch, {}, &TorchTime::ms);
  return ops;
}

std::string kernels_cell(const std::vector<TorchTime>& times) {
  if (times.empty()) return "";
  std::string others;
  for (size_t i = 1; i < times.size(); ++i) {
    others += (i == 1 ? "" : ", ") + times[i].kernel + " " + format_fixed(times[i].ms * 1e3, 1);
  }
  return times.front().kernel + (others.empty() ? "" : " (" + others + ")");
}

}  // namespace

TextTable kernels_table(const std::vector<MeasuredOp>& ops, const TorchTimes& torch) {
  const bool beside = !torch.rows.empty();
  std::vector<std::string> header{"op", "us", "reached", "unit", "share of the limit"};
  if (beside) header.insert(header.end(), {"torch us", "scd / torch", "kernel of torch"});
  TextTable table(header);
  for (const Op& op : joined(ops, torch)) {
    std::vector<std::string> cells{op.name, "-", "-", "", "-"};
    if (op.ours != nullptr) {
      cells = {op.name, format_fixed(op.ours->ms * 1e3, 1), format_fixed(op.ours->rate, 1), op.ours->unit,
               format_percent(op.ours->rate / op.ours->limit)};
    }
    if (beside) {
      cells.push_back(op.torch.empty() ? "-" : format_fixed(op.torch.front().ms * 1e3, 1));
      cells.push_back(op.both() ? format_fixed(op.ratio(), 2) : "-");
      cells.push_back(kernels_cell(op.torch));
    }
    table.add_row(cells);
  }
  return table;
}

std::vector<Json> kernels_rows(const std::vector<MeasuredOp>& ops, const TorchTimes& torch) {
  std::vector<Json> rows;
  for (const Op& op : joined(ops, torch)) {
    Json row = {{"op", op.name}, {"total_ms", nullptr}};
    if (op.ours != nullptr) {
      const MeasuredOp& ours = *op.ours;
      row["total_ms"] = ours.ms;
      row[ours.unit] = ours.rate;
      row["limit"] = ours.limit;
      row["limit_share"] = ours.rate / ours.limit;
    }
    if (!torch.rows.empty()) {
      row["torch"] = torch.version;
      for (const char* key : {"torch_ms", "ratio_to_torch", "torch_kernel", "torch_kernels"}) row[key] = nullptr;
      if (!op.torch.empty()) row["torch_ms"] = op.torch.front().ms;
      if (op.both()) row["ratio_to_torch"] = op.ratio();
      for (const TorchTime& time : op.torch) {
        if (time.kernel.empty()) continue;
        if (row["torch_kernel"].is_null()) row["torch_kernel"] = time.kernel;
        row["torch_kernels"][time.kernel] = time.ms;
      }
    }
    rows.push_back(row);
  }
  return rows;
}

}  // namespace scd
