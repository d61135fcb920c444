// What every eval and bench prints and writes: one table for people, one JSON file for machines.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/gpu_driver.h"

namespace scd {

// The row with the keys that every row of every report has, null where it did not measure them: codec, level, task,
// questions, f1, exact_match, same_answer (all three in [0, 1]), kl_question, kl_answer, kl_p99 (nats), perplexity,
// bytes_per_token, ratio_to_bf16. They come first, in this order; what else the row holds follows.
nlohmann::ordered_json complete_row(const nlohmann::ordered_json& row);

// {machine, commit, command, rows}: one object per measurement, the same keys everywhere. Times end in `_ms`, rates in
// `_per_s`, shares of a limit in `_share`.
class Report {
 public:
  void add_row(const nlohmann::ordered_json& row);  // completed
  const nlohmann::ordered_json& rows() const { return rows_; }
  nlohmann::ordered_json to_json() const;
  // Written beside and renamed into place; throws Error naming the path. An empty path writes nothing, so callers pass
  // their `--json` option as it came.
  void write(const std::filesystem::path& path) const;

 private:
  nlohmann::ordered_json rows_ = nlohmann::ordered_json::array();
};

// {"cpu": model name, "cores": usable ones, "isa": widest vector and matrix extensions, "cpu_gemm": whose
// products are the CPU's limits, as "oneDNN, BF16", "memory_gib": installed}, and where a GPU is {"gpu": name,
// "gpu_memory_gib", gpu_provenance(), "cuda_of_driver": newest that it serves, as "13.0", "cuda_runtime": built with}.
// Keeps the GPU busy for a moment to read its clocks, whatever the run itself used.
nlohmann::ordered_json machine_description();
// {"gpu_driver": "580.159.04", "sm_clock_mhz", "sm_clock_max_mhz", "memory_clock_mhz", "memory_clock_max_mhz"}, null
// where not known, and then "clocks_unknown": why.
nlohmann::ordered_json gpu_provenance(const std::string& driver_version, const kernels::GpuClocks& clocks);
// The commit this binary was built from, "-dirty" appended where the tree had changes; of sources without their
// repository what $SCD_COMMIT said when they were built, else "unknown".
std::string build_commit();
// The command line of this process, arguments quoted where they need it.
std::string command_line();

// A table with aligned columns: text to the left, numbers to the right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : header_(std::move(header)) {}
  void add_row(std::vector<std::string> cells);  // as many as the header has
  void print(std::ostream& out) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

std::string format_fixed(double value, int decimals);  // "12.34"
std::string format_percent(double share);              // 0.614 -> "61.4 %"

}  // namespace scd
