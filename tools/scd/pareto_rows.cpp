#include "tools/scd/pareto_rows.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>

#include "common/base/error.h"
#include "tools/scd/answer_score.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kQualityKeys{"questions",   "f1",          "f1_low",       "f1_high",
                                  "f1_loss",     "f1_loss_low", "f1_loss_high", "exact_match",
                                  "same_answer", "kl_question", "kl_answer",    "kl_p99"};

template <class Get>
double median_of(const std::vector<TtftSample>& samples, Get&& get) {
  std::vector<double> values;
  for (const TtftSample& sample : samples) values.push_back(get(sample));
  return percentile(std::move(values), 0.5);
}

double ttft_of(const ParetoPoint& point) {
  return median_of(point.samples, [](const TtftSample& sample) { return sample.ttft_ms; });
}

const ParetoPoint* same_place(const std::vector<ParetoPoint>& points, const ParetoPoint& point,
                              const std::string& codec) {
  const auto found = std::ranges::find_if(points, [&](const ParetoPoint& other) {
    return other.codec == codec && other.bandwidth_gbps == point.bandwidth_gbps &&
           other.prompt_tokens == point.prompt_tokens && other.regime == point.regime;
  });
  return found == points.end() ? nullptr : &*found;
}

Json quotient(double above, double below) { return above > 0 && below > 0 ? Json(above / below) : Json(nullptr); }

Json row_of(const ParetoPoint& point, const std::vector<ParetoPoint>& points) {
  const ParetoPoint* raw = same_place(points, point, "raw");
  const ParetoPoint* oracle = same_place(points, point, "oracle");
  const double ttft = ttft_of(point);
  const auto by_ttft = [](const TtftSample& a, const TtftSample& b) { return a.ttft_ms < b.ttft_ms; };
  const auto [fastest, slowest] = std::ranges::minmax_element(point.samples, by_ttft);
  const auto bytes = static_cast<double>(point.wire_bytes);
  Json row = {{"codec", point.codec},
              {"level", point.level},
              {"task", "pareto"},
              {"bandwidth_gbps", point.bandwidth_gbps},
              {"prompt_tokens", point.prompt_tokens},
              {"regime", point.regime},
              {"runs", point.samples.size()},
              {"ttft_ms", ttft},
              {"ttft_min_ms", fastest->ttft_ms},
              {"ttft_max_ms", slowest->ttft_ms}};
  for (size_t part = 0; part < kTtftParts.size(); ++part) {
    row[kTtftParts[part].key] = median_of(point.samples, [part](const TtftSample& s) { return s.parts_ms[part]; });
  }
  row["wire_bytes"] = point.wire_bytes;
  row["bytes_per_token"] = point.wire_bytes > 0 ? bytes / static_cast<double>(point.handover_tokens) : 0.0;
  row["ratio_to_bf16"] = point.ratio_to_bf16 > 0 ? Json(point.ratio_to_bf16) : Json(nullptr);
  row["wire_ratio_to_raw"] = quotient(raw != nullptr ? static_cast<double>(raw->wire_bytes) : 0, bytes);
  row["ttft_ratio_to_raw"] = quotient(ttft, raw != nullptr ? ttft_of(*raw) : 0);
  row["ttft_ratio_to_oracle"] = quotient(ttft, oracle != nullptr ? ttft_of(*oracle) : 0);
  return row;
}

bool measured_quality(const Json& row) {
  const auto given = [&](const char* key) { return row.contains(key) && row.at(key).is_number(); };
  return row.contains("codec") && row.at("codec").is_string() && (given("f1") || given("kl_answer"));
}

std::string task_of(const Json& row) {
  return row.contains("task") && row.at("task").is_string() ? row.at("task").get<std::string>() : "";
}

std::string chosen_task(const Json& quality, const std::string& asked) {
  std::set<std::string> tasks;
  for (const Json& row : quality) {
    if (measured_quality(row)) tasks.insert(task_of(row));
  }
  if (asked.empty() && tasks.size() == 1) return *tasks.begin();
  if (tasks.contains(asked)) return asked;
  std::string known;
  for (const std::string& task : tasks) known += (known.empty() ? "" : ", ") + task;
  throw Error(ErrorCode::kInvalidArgument,
              tasks.empty() ? "the quality file has no row with f1 or kl_answer: pass what scd eval --json wrote"
                            : "--quality-task '" + asked + "': the quality file holds " + known + "; name one of them");
}

std::string csv_field(const Json& value) {
  if (value.is_null()) return "";
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

Json pareto_rows(const std::vector<ParetoPoint>& points) {
  Json rows = Json::array();
  for (const ParetoPoint& point : points) rows.push_back(row_of(point, points));
  return rows;
}

std::string codec_of(const Json& row) {
  const auto name = row.at("codec").get<std::string>();
  return name.substr(0, name.find('@'));
}

int32_t level_of(const Json& row) {
  const auto name = row.at("codec").get<std::string>();
  const size_t at = name.find('@');
  int32_t level = 0;
  if (at != std::string::npos) {
    std::from_chars(name.data() + at + 1, name.data() + name.size(), level);
  } else if (row.contains("level") && row.at("level").is_number_integer()) {
    level = row.at("level").get<int32_t>();
  }
  return level;
}

size_t join_quality(Json& rows, const Json& quality, const std::string& task) {
  const std::string from = chosen_task(quality, task);
  size_t joined = 0;
  for (Json& row : rows) {
    for (const Json& measured : quality) {
      if (!measured_quality(measured) || task_of(measured) != from) continue;
      if (codec_of(measured) != codec_of(row) || level_of(measured) != level_of(row)) continue;
      row["quality_task"] = from;
      for (const char* key : kQualityKeys) {
        if (measured.contains(key)) row[key] = measured.at(key);
      }
      ++joined;
      break;
    }
  }
  return joined;
}

std::string to_csv(const Json& rows) {
  std::vector<std::string> keys;
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) {
      if (std::ranges::find(keys, key) == keys.end()) keys.push_back(key);
    }
  }
  std::string text;
  for (const std::string& key : keys) text += (text.empty() ? "" : ",") + csv_field(key);
  for (const Json& row : rows) {
    text += "\r\n";
    for (size_t i = 0; i < keys.size(); ++i) {
      text += (i == 0 ? "" : ",") + (row.contains(keys[i]) ? csv_field(row.at(keys[i])) : "");
    }
  }
  return text + "\r\n";
}

Json read_report(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file)) {
    throw Error(ErrorCode::kNotFound, file.string() + ": cannot be read");
  }
  Json report = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (report.is_discarded()) throw Error(ErrorCode::kInvalidArgument, file.string() + ": not JSON");
  if (!report.is_object() || !report.contains("rows") || !report.at("rows").is_array()) {
    throw Error(ErrorCode::kInvalidArgument,
                file.string() + ": has no array 'rows'; pass what an scd command wrote with --json");
  }
  for (size_t i = 0; i < report.at("rows").size(); ++i) {
    const Json& row = report.at("rows").at(i);
    if (row.is_object() && row.contains("codec") && (row.at("codec").is_string() || row.at("codec").is_null()))
      continue;
    throw Error(ErrorCode::kInvalidArgument,
                file.string() + ": row " + std::to_string(i) + " is no object with a 'codec'");
  }
  return report;
}

}  // namespace scd
