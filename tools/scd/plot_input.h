// What `scd plot` finds in the reports of eval, bench pair, bench pareto, bench serve and calibrate.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/scd/ttft_parts.h"

namespace scd {

// A codec at a level on one task. At least one of f1 and kl is there.
struct QualityPoint {
  std::string codec;  // "rd"; of a calibration's search, the plan
  int32_t level = 0;
  double bytes_per_token = 0;  // 0: nothing is sent
  std::optional<double> f1;    // in [0, 1]
  std::optional<double> f1_low, f1_high;
  std::optional<double> kl;  // nats: on the oracle's answers, of prose on its text
  int64_t questions = 0;
};

struct LatencyPoint {
  std::string codec;
  int32_t level = 0;
  std::string panel;          // points of one panel compare: "0.1 Gbit/s", or of bench pair its question file
  std::string task;           // of bench pair; empty for bench pareto
  int64_t prompt_tokens = 0;  // 0: the question file's prompts
  std::string regime;         // kPrefillInPath or kHandoff
  double ttft_ms = 0;
  std::array<double, kTtftParts.size()> parts_ms{};
};

// Of bench serve: a codec at a load.
struct LoadCurvePoint {
  std::string codec;
  int32_t level = 0;
  std::string task;     // where the prompts came from
  bool closed = false;  // load is of requests at once, else of requests a second
  double load = 0;
  double ttft_p50_ms = 0, ttft_p99_ms = 0, itl_p99_ms = 0;
  double requests_per_s = 0;
  bool has_goodput = false;
  double goodput_per_s = 0;
};

struct LayerCurve {
  std::string name;                           // "scd loss_key"
  std::vector<std::optional<double>> values;  // by layer
};

struct PlotInput {
  std::map<std::string, std::vector<QualityPoint>> quality;  // by task
  std::vector<LatencyPoint> latency;                         // in the files' order
  std::vector<LoadCurvePoint> loads;                         // in the files' order
  std::vector<LayerCurve> layers;
  std::vector<std::string> codecs;              // in the order of appearance: a codec looks alike in every figure
  std::vector<nlohmann::ordered_json> reports;  // whole files, for the page
  std::vector<std::filesystem::path> files;     // they came from
};

// Throws Error naming file, row and field where one that a figure needs is missing or of the wrong kind, and when no
// row holds anything to draw.
PlotInput read_plot_input(const std::vector<std::filesystem::path>& files);

}  // namespace scd
