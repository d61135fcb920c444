// PyTorch's times of the ops of `scd bench kernels`, by the python3 in PATH: tools/compare/torch_kernels.py, which this
// binary holds, run as a child.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace scd {

extern const char* const kTorchScript;  // its text, from the build

struct TorchTime {
  std::string op;      // as scd bench kernels calls it
  std::string kernel;  // which of PyTorch's; empty where it was not asked for one
  double ms = 0.0;
};

struct TorchTimes {
  std::string version;  // of torch; empty where it did not run
  std::string problem;  // in one line: why times are missing
  std::vector<TorchTime> rows;
};

// `shape`: members of Shape in the script. Its stderr is this process's. What goes wrong is a problem, never an Error.
TorchTimes torch_times(const nlohmann::ordered_json& shape);

// What the script printed until it ended with that status, -1 where a signal ended it.
TorchTimes parsed_torch_times(std::string_view output, int status);

}  // namespace scd
