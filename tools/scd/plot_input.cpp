#include "tools/scd/plot_input.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "common/base/error.h"
#include "tools/scd/pareto_rows.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

// A row with its address, for messages.
struct Row {
  const std::filesystem::path& file;
  size_t index;
  const Json& json;

  bool has(const char* key) const { return json.contains(key) && !json.at(key).is_null(); }

  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorCode::kInvalidArgument, file.string() + ": row " + std::to_string(index) + ": " + what +
                                                 "; write the file again with --json of scd eval or scd bench");
  }

  double number(const char* key) const {
    if (!has(key) || !json.at(key).is_number()) refuse(std::string("'") + key + "' is missing or no number");
    const double value = json.at(key).get<double>();
    if (!std::isfinite(value)) refuse(std::string("'") + key + "' is not finite");
    return value;
  }

  std::string text(const char* key) const {
    if (!has(key) || !json.at(key).is_string()) refuse(std::string("'") + key + "' is missing or no text");
    return json.at(key).get<std::string>();
  }

  std::optional<double> optional(const char* key) const { return has(key) ? std::optional(number(key)) : std::nullopt; }
};

std::string link_name(double gbps) {
  if (gbps == 0) return "uncapped";
  std::ostringstream text;
  text << gbps << " Gbit/s";
  return text.str();
}

// Of a search: the consumer's compute and the plan, and the variant where it is not the full fit.
std::string series_of(const Row& row) {
  if (!row.has("plan")) return codec_of(row.json);
  std::ostringstream name;
  name << std::round(100 * row.number("native_share")) << " % native: " << row.text("plan");
  if (row.has("variant") && row.text("variant") != "full") name << ", " << row.text("variant");
  return name.str();
}

LatencyPoint latency_of(const Row& row) {
  LatencyPoint point;
  point.codec = codec_of(row.json);
  point.level = level_of(row.json);
  point.regime = row.text("regime");
  if (point.regime != kPrefillInPath && point.regime != kHandoff) {
    row.refuse("'regime' is '" + point.regime + "', not " + kPrefillInPath + " or " + kHandoff);
  }
  point.ttft_ms = row.number("ttft_ms");
  if (row.has("bandwidth_gbps")) {
    point.panel = link_name(row.number("bandwidth_gbps"));
    point.prompt_tokens = static_cast<int64_t>(row.number("prompt_tokens"));
  } else {
    point.panel = point.task = row.text("task");
  }
  for (size_t part = 0; part < kTtftParts.size(); ++part) point.parts_ms[part] = row.number(kTtftParts[part].key);
  return point;
}

QualityPoint quality_of(const Row& row) {
  QualityPoint point;
  point.codec = series_of(row);
  point.level = level_of(row.json);
  point.bytes_per_token = row.number("bytes_per_token");
  point.f1 = row.optional("f1");
  point.f1_low = row.optional("f1_low");
  point.f1_high = row.optional("f1_high");
  point.kl = row.has("kl_answer") ? row.optional("kl_answer") : row.optional("kl_text");
  point.questions = static_cast<int64_t>(row.optional("questions").value_or(0));
  return point;
}

LoadCurvePoint load_of(const Row& row) {
  LoadCurvePoint point;
  point.codec = codec_of(row.json);
  point.level = level_of(row.json);
  point.task = row.text("task");
  point.closed = row.text("load") == "closed";
  point.load = row.number(point.closed ? "concurrency" : "request_rate_per_s");
  point.ttft_p50_ms = row.number("ttft_p50_ms");
  point.ttft_p99_ms = row.number("ttft_p99_ms");
  point.itl_p99_ms = row.number("itl_p99_ms");
  point.requests_per_s = row.number("requests_per_s");
  point.has_goodput = row.has("goodput_per_s");
  point.goodput_per_s = row.optional("goodput_per_s").value_or(0);
  return point;
}

// A measurement of the same codec, level and task is kept unless the new one stands on more questions.
void add_quality(std::vector<QualityPoint>& points, const QualityPoint& point) {
  const auto same = [&](const QualityPoint& other) { return other.codec == point.codec && other.level == point.level; };
  const auto found = std::ranges::find_if(points, same);
  if (found == points.end()) {
    points.push_back(point);
  } else if (point.questions > found->questions) {
    *found = point;
  }
}

void add_layers(PlotInput& input, const Row& row) {
  std::map<std::string, LayerCurve> curves;
  const Json& layers = row.json.at("layers");
  if (!layers.is_array()) row.refuse("'layers' is no array");
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    if (!layers[layer].is_object()) row.refuse("'layers' holds something that is no object");
    for (const auto& [key, value] : layers[layer].items()) {
      if (!key.starts_with("loss") || !value.is_number()) continue;
      LayerCurve& curve = curves[key];
      curve.name = codec_of(row.json) + " " + key;
      curve.values.resize(layers.size());
      curve.values[layer] = value.get<double>();
    }
  }
  for (auto& [key, curve] : curves) input.layers.push_back(std::move(curve));
}

void add_row(PlotInput& input, const Row& row) {
  if (!row.has("codec")) return;  // of a bench without codecs
  if (row.has("load")) {
    if (row.text("load") != "burst") input.loads.push_back(load_of(row));  // one point is no curve
    return;
  }
  if (row.has("layers")) add_layers(input, row);
  const bool timed = row.has("ttft_ms");
  const bool judged = row.has("f1") || row.has("kl_answer") || row.has("kl_text");
  if (timed) input.latency.push_back(latency_of(row));
  if (judged) {
    const std::string task = row.has("quality_task") ? row.text("quality_task") : row.text("task");
    add_quality(input.quality[task], quality_of(row));
  }
  if (!timed && !judged) return;
  const std::string codec = series_of(row);
  if (std::ranges::find(input.codecs, codec) == input.codecs.end()) input.codecs.push_back(codec);
}

void sort_levels(PlotInput& input) {
  for (auto& [task, points] : input.quality) std::ranges::stable_sort(points, {}, &QualityPoint::level);
}

}  // namespace

PlotInput read_plot_input(const std::vector<std::filesystem::path>& files) {
  PlotInput input;
  input.files = files;
  for (const auto& file : files) {
    Json report = read_report(file);
    const Json& rows = report.at("rows");
    for (size_t i = 0; i < rows.size(); ++i) add_row(input, {file, i, rows.at(i)});
    input.reports.push_back(std::move(report));
  }
  sort_levels(input);
  if (input.quality.empty() && input.latency.empty() && input.loads.empty() && input.layers.empty()) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "nothing to draw: no row has f1, a KL, ttft_ms, a load or layers; pass what scd eval, scd bench pair, scd "
        "bench pareto or scd bench serve wrote with --json");
  }
  return input;
}

}  // namespace scd
