#include "tools/scd/report.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <ostream>
#include <thread>

#include "common/base/error.h"
#include "kernels/device.h"
#include "kernels/gpu_driver.h"
#include "kernels/limits.h"
#include "kernels/linear.h"

namespace scd {
namespace {

constexpr std::array kRowKeys{"codec",       "level",           "task",         "questions", "f1",
                              "exact_match", "same_answer",     "kl_question",  "kl_answer", "kl_p99",
                              "perplexity",  "bytes_per_token", "ratio_to_bf16"};

std::string field_of(const char* file, const std::string& field) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(field)) continue;
    const size_t colon = line.find(':');
    const size_t value = colon == std::string::npos ? std::string::npos : line.find_first_not_of(" \t", colon + 1);
    if (value != std::string::npos) return line.substr(value);
  }
  return "unknown";
}

std::string shell_quoted(const std::string& argument) {
  if (!argument.empty() && argument.find_first_of(" \t\n'\"\\$`*?[](){}<>|&;#~!") == std::string::npos) return argument;
  std::string text = "'";
  for (const char c : argument) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// Numbers with an optional unit stand to the right.
bool looks_numeric(const std::string& cell) {
  return cell.empty() || cell == "-" ||
         (cell.find_first_of("0123456789") <= 1 &&
          cell.find_first_not_of("+-0123456789.eE %x~<>") == std::string::npos);
}

size_t display_width(const std::string& cell) {
  return static_cast<size_t>(std::ranges::count_if(cell, [](char c) { return (c & 0xC0) != 0x80; }));
}

// 13000 -> "13.0"
std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace

nlohmann::ordered_json gpu_provenance(const std::string& driver_version, const kernels::GpuClocks& clocks) {
  const auto or_null = [](const std::optional<int>& mhz) {
    return mhz ? nlohmann::ordered_json(*mhz) : nlohmann::ordered_json();
  };
  nlohmann::ordered_json fields = {{"gpu_driver", nullptr},
                                   {"sm_clock_mhz", or_null(clocks.sm_mhz)},
                                   {"sm_clock_max_mhz", or_null(clocks.sm_max_mhz)},
                                   {"memory_clock_mhz", or_null(clocks.memory_mhz)},
                                   {"memory_clock_max_mhz", or_null(clocks.memory_max_mhz)}};
  if (!driver_version.empty()) fields["gpu_driver"] = driver_version;
  if (!clocks.problem.empty()) fields["clocks_unknown"] = clocks.problem;
  return fields;
}

nlohmann::ordered_json machine_description() {
  const auto pages = static_cast<double>(::sysconf(_SC_PHYS_PAGES));
  const auto page_bytes = static_cast<double>(::sysconf(_SC_PAGE_SIZE));
  constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
  nlohmann::ordered_json machine = {{"cpu", field_of("/proc/cpuinfo", "model name")},
                                    {"cores", std::thread::hardware_concurrency()},
                                    {"isa", kernels::linear_backend()},
                                    {"cpu_gemm", kernels::cpu_gemm_name()},
                                    {"memory_gib", static_cast<int64_t>(pages * page_bytes / kGiB + 0.5)}};
  const kernels::GpuDevice& gpu = kernels::gpu_device();
  if (gpu.usable) {
    machine["gpu"] = gpu.name;
    machine["gpu_memory_gib"] = static_cast<int64_t>(static_cast<double>(gpu.memory_bytes) / kGiB + 0.5);
    machine.update(gpu_provenance(kernels::installed_driver_version(), kernels::clocks_under_load(kernels::Nvml())));
    machine["cuda_of_driver"] = cuda_version(gpu.cuda_of_driver);
    machine["cuda_runtime"] = cuda_version(gpu.cuda_runtime);
  }
  return machine;
}

std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::string line;
  for (std::string argument; std::getline(in, argument, '\0');)
    line += (line.empty() ? "" : " ") + shell_quoted(argument);
  return line;
}

nlohmann::ordered_json complete_row(const nlohmann::ordered_json& row) {
  nlohmann::ordered_json complete;
  for (const char* key : kRowKeys) complete[key] = nullptr;
  complete.update(row);
  return complete;
}

void Report::add_row(const nlohmann::ordered_json& row) { rows_.push_back(complete_row(row)); }

nlohmann::ordered_json Report::to_json() const {
  return {{"machine", machine_description()}, {"commit", build_commit()}, {"command", command_line()}, {"rows", rows_}};
}

void Report::write(const std::filesystem::path& path) const {
  if (path.empty()) return;
  const std::filesystem::path partial = path.string() + ".partial";
  std::error_code failed;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), failed);  // opening tells
  {
    std::ofstream out(partial, std::ios::trunc);
    out << to_json().dump(2) << "\n";
    if (!out.flush()) throw Error(ErrorCode::kUnavailable, path.string() + ": cannot write the report");
  }
  std::filesystem::rename(partial, path, failed);
  if (failed) throw Error(ErrorCode::kUnavailable, path.string() + ": cannot write the report: " + failed.message());
}

void TextTable::add_row(std::vector<std::string> cells) {
  SCD_CHECK(cells.size() == header_.size(), "as many cells as the header has");
  rows_.push_back(std::move(cells));
}

void TextTable::print(std::ostream& out) const {
  std::vector<size_t> widths;
  std::vector<bool> to_the_right;
  for (size_t column = 0; column < header_.size(); ++column) {
    size_t width = display_width(header_[column]);
    bool numeric = !rows_.empty();
    for (const auto& row : rows_) {
      width = std::max(width, display_width(row[column]));
      numeric = numeric && looks_numeric(row[column]);
    }
    widths.push_back(width);
    to_the_right.push_back(numeric);
  }
  const auto print_row = [&](const std::vector<std::string>& row) {
    std::string line;
    for (size_t column = 0; column < row.size(); ++column) {
      const std::string padding(widths[column] - display_width(row[column]), ' ');
      line += (column == 0 ? "" : "  ") + (to_the_right[column] ? padding + row[column] : row[column] + padding);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out << line << "\n";
  };
  print_row(header_);
  std::vector<std::string> rule;
  for (const size_t width : widths) rule.emplace_back(width, '-');
  print_row(rule);
  for (const auto& row : rows_) print_row(row);
}

std::string format_fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

std::string format_percent(double share) { return format_fixed(100.0 * share, 1) + " %"; }

}  // namespace scd
