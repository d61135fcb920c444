// The rows of `scd bench pareto`: medians, ratios, and the quality that an evaluation measured for the same codecs.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/scd/ttft_parts.h"

namespace scd {

// One request.
struct TtftSample {
  double ttft_ms = 0;
  std::array<double, kTtftParts.size()> parts_ms{};  // in the order of kTtftParts
};

// Everything measured of one codec at one place of the grid.
struct ParetoPoint {
  std::string codec;
  int32_t level = 0;
  double bandwidth_gbps = 0;  // of the emulated link; 0: not capped
  int64_t prompt_tokens = 0;
  std::string regime;  // kPrefillInPath or kHandoff
  std::vector<TtftSample> samples = {};
  uint64_t wire_bytes = 0;       // payloads and headers of one request
  uint64_t handover_tokens = 0;  // tokens the bytes stand for, sinks included
  double ratio_to_bf16 = 0;      // 0 without a transfer
};

// One row a point: codec, level, bandwidth_gbps, prompt_tokens, regime, runs, ttft_ms and its parts (medians),
// ttft_min_ms, ttft_max_ms, wire_bytes, bytes_per_token, wire_ratio_to_raw (raw's bytes over these: larger is smaller),
// ttft_ratio_to_raw and ttft_ratio_to_oracle (this time over theirs: below 1 is faster). Null where there is nothing to
// divide.
nlohmann::ordered_json pareto_rows(const std::vector<ParetoPoint>& points);

// Codec and level of a report's row: "rd" and 2 of {"rd", 2} and of {"rd@2", 2} alike.
std::string codec_of(const nlohmann::ordered_json& row);
int32_t level_of(const nlohmann::ordered_json& row);

// Copies f1, exact_match, same_answer, KL and their intervals from the row of `quality` with the same codec and level;
// quality_task names where they come from. `task` empty: the one there is. Throws Error when there are several to
// choose from, or none. Returns how many rows found their quality.
size_t join_quality(nlohmann::ordered_json& rows, const nlohmann::ordered_json& quality, const std::string& task);

// RFC 4180: a header with the keys of all rows, then the rows; null is an empty field.
std::string to_csv(const nlohmann::ordered_json& rows);

// A report with its array `rows`, each an object with a codec (or null). Throws Error naming the file and what it
// lacks.
nlohmann::ordered_json read_report(const std::filesystem::path& file);

}  // namespace scd
