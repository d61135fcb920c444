#include "tools/scd/torch_times.h"

#include <fstream>
#include <sstream>

#include "common/base/error.h"
#include "tools/scd/child_process.h"
#include "tools/scd/temporary_folder.h"

namespace scd {

TorchTimes parsed_torch_times(std::string_view output, int status) {
  TorchTimes times;
  std::istringstream lines{std::string(output)};
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto text = [&](const char* key) {
      const auto found = row.find(key);
      return found != row.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    if (!row.is_object()) {
      times.problem = "python3 printed a line that is none of the script's: " + line;
    } else if (row.contains("missing")) {
      times.problem = text("missing");
    } else if (row.contains("torch")) {
      times.version = text("torch");
    } else if (row.contains("op") && row.contains("ms") && row["ms"].is_number()) {
      times.rows.push_back({text("op"), text("kernel"), row["ms"].get<double>()});
    }
  }
  if (status < 0) times.problem = "a signal ended python3";
  if (status > 0) times.problem = "python3 ended with status " + std::to_string(status);
  return times;
}

TorchTimes torch_times(const nlohmann::ordered_json& shape) {
  try {
    const TemporaryFolder folder("scd-torch");  // of its own: Python looks for modules beside its script first
    const auto script = folder.path() / "torch_kernels.py";
    std::ofstream out(script, std::ios::binary);
    out << kTorchScript;
    out.close();
    if (!out) throw Error(ErrorCode::kUnavailable, script.string() + ": cannot be written; is there room?");
    ChildProcess python({"python3", script.string(), shape.dump()}, {});
    const std::string output = python.read_rest();
    return parsed_torch_times(output, python.wait());
  } catch (const Error& error) {
    return {.version = {}, .problem = error.what(), .rows = {}};
  }
}

}  // namespace scd
