#include "tools/scd/plot_page.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <span>

#include "common/base/error.h"
#include "tools/scd/pareto_rows.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

using Json = nlohmann::ordered_json;

struct Column {
  const char* heading;
  const char* key;
  double scale;
  int decimals;
};
constexpr std::array kQualityColumns{Column{"questions", "questions", 1, 0},
                                     Column{"bytes/token", "bytes_per_token", 1, 0},
                                     Column{"BF16/bytes", "ratio_to_bf16", 1, 2},
                                     Column{"F1 %", "f1", 100, 1},
                                     Column{"low", "f1_low", 100, 1},
                                     Column{"high", "f1_high", 100, 1},
                                     Column{"F1 loss %", "f1_loss", 100, 1},
                                     Column{"low", "f1_loss_low", 100, 1},
                                     Column{"high", "f1_loss_high", 100, 1},
                                     Column{"exact %", "exact_match", 100, 1},
                                     Column{"same answer %", "same_answer", 100, 1},
                                     Column{"KL question", "kl_question", 1, 4},
                                     Column{"KL answer", "kl_answer", 1, 4},
                                     Column{"KL text", "kl_text", 1, 4},
                                     Column{"perplexity", "perplexity", 1, 2}};
constexpr std::array kLatencyColumns{Column{"bytes/token", "bytes_per_token", 1, 0},
                                     Column{"raw/bytes", "wire_ratio_to_raw", 1, 2},
                                     Column{"TTFT ms", "ttft_ms", 1, 1},
                                     Column{"vs raw", "ttft_ratio_to_raw", 1, 2},
                                     Column{"vs oracle", "ttft_ratio_to_oracle", 1, 2},
                                     Column{"queue", "queue_ms", 1, 1},
                                     Column{"prefill", "prefill_ms", 1, 1},
                                     Column{"encode", "encode_ms", 1, 1},
                                     Column{"wire", "wire_ms", 1, 1},
                                     Column{"rebuild", "rebuild_ms", 1, 1},
                                     Column{"suffix", "suffix_ms", 1, 1},
                                     Column{"first step", "first_step_ms", 1, 1},
                                     Column{"orchestration", "orchestration_ms", 1, 1}};

constexpr std::array kLoadColumns{Column{"requests/s", "request_rate_per_s", 1, 2},
                                  Column{"at once", "concurrency", 1, 0},
                                  Column{"requests", "requests", 1, 0},
                                  Column{"failed", "failed", 1, 0},
                                  Column{"answers/s", "requests_per_s", 1, 2},
                                  Column{"tokens/s", "output_tokens_per_s", 1, 1},
                                  Column{"goodput/s", "goodput_per_s", 1, 2},
                                  Column{"TTFT p50", "ttft_p50_ms", 1, 1},
                                  Column{"p90", "ttft_p90_ms", 1, 1},
                                  Column{"p99", "ttft_p99_ms", 1, 1},
                                  Column{"ITL p50", "itl_p50_ms", 1, 1},
                                  Column{"p90", "itl_p90_ms", 1, 1},
                                  Column{"p99", "itl_p99_ms", 1, 1},
                                  Column{"E2E p50", "e2e_p50_ms", 1, 1},
                                  Column{"p90", "e2e_p90_ms", 1, 1},
                                  Column{"p99", "e2e_p99_ms", 1, 1},
                                  Column{"bytes/token", "bytes_per_token", 1, 0},
                                  Column{"predicted within %", "prediction_error_p50_share", 100, 1}};

constexpr const char* kStyle =
    "body{font:15px/1.45 sans-serif;max-width:90rem;margin:2rem auto;padding:0 1rem;color:#111}"
    "figure{margin:1.5rem 0}figure svg{width:100%;height:auto;max-width:88rem}figcaption{font-weight:bold}"
    "table{border-collapse:collapse;font-size:13px;margin:1rem 0}td,th{padding:.15rem .55rem;border-bottom:1px solid "
    "#bbb}"
    "td{text-align:right;white-space:nowrap}td.text{text-align:left}th{border-bottom:2px solid #111;text-align:right}"
    "code{font-size:13px;overflow-wrap:anywhere}@media print{figure{break-inside:avoid}}";

std::string text_of(const Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key)) return "unknown";
  return json.at(key).is_string() ? json.at(key).get<std::string>() : json.at(key).dump();
}

std::string sources(const PlotInput& input) {
  std::string html = "<h2>Where the numbers come from</h2><ul>";
  for (size_t i = 0; i < input.reports.size(); ++i) {
    const Json& report = input.reports[i];
    const Json machine = report.contains("machine") ? report.at("machine") : Json();
    html += "<li>" + html_escaped(input.files[i].filename().string()) + ": " + html_escaped(text_of(machine, "cpu")) +
            ", " + html_escaped(text_of(machine, "cores")) + " cores, " + html_escaped(text_of(machine, "isa")) +
            "; commit " + html_escaped(text_of(report, "commit")) + "<br><code>" +
            html_escaped(text_of(report, "command")) + "</code></li>";
  }
  return html + "</ul>\n";
}

std::string table(const std::vector<const Json*>& rows, std::span<const char* const> texts,
                  std::span<const Column> columns) {
  const auto has = [](const Json& row, const char* key) { return row.contains(key) && row.at(key).is_number(); };
  std::vector<Column> used;
  std::ranges::copy_if(columns, std::back_inserter(used), [&](const Column& column) {
    return std::ranges::any_of(rows, [&](const Json* row) { return has(*row, column.key); });
  });
  std::string html = "<table><tr>";
  for (const char* key : texts) html += "<th>" + html_escaped(key) + "</th>";
  for (const Column& column : used) html += "<th>" + html_escaped(column.heading) + "</th>";
  for (const Json* row : rows) {
    html += "</tr>\n<tr>";
    for (const char* key : texts) {
      const bool there = row->contains(key) && !row->at(key).is_null();
      const std::string text = !there ? "" : std::string_view(key) == "codec" ? codec_of(*row) : text_of(*row, key);
      html += "<td class=\"text\">" + html_escaped(text) + "</td>";
    }
    for (const Column& column : used) {
      const bool there = has(*row, column.key);
      html += "<td>" + (there ? format_fixed(row->at(column.key).get<double>() * column.scale, column.decimals) : "") +
              "</td>";
    }
  }
  return html + "</tr></table>\n";
}

std::string tables(const PlotInput& input) {
  std::vector<const Json*> quality, latency, load;
  for (const Json& report : input.reports) {
    for (const Json& row : report.at("rows")) {
      const bool loaded = row.contains("load");
      const bool timed = row.contains("ttft_ms") && !row.at("ttft_ms").is_null();
      (loaded ? load : timed ? latency : quality).push_back(&row);
    }
  }
  constexpr std::array kQualityTexts{"task", "codec", "level"};
  constexpr std::array kLatencyTexts{"task", "bandwidth_gbps", "prompt_tokens", "regime", "codec", "level"};
  std::string html;
  if (!quality.empty()) html += "<h2>Quality</h2>\n" + table(quality, kQualityTexts, kQualityColumns);
  constexpr std::array kLoadTexts{"task", "load", "codec", "level"};
  if (!load.empty()) {
    html += "<h2>Under load</h2>\n<p>Times in ms from a request's arrival, as clients saw them.</p>\n" +
            table(load, kLoadTexts, kLoadColumns);
  }
  if (latency.empty()) return html;
  return html +
         "<h2>Time to the first token</h2>\n<p>Medians, ms. prefill_in_path: a prefix asked for the first time; "
         "handoff: "
         "its codes are stored. Bandwidth 0: not capped. raw/bytes: raw's wire bytes over these; vs: this time over "
         "theirs, below 1 is faster.</p>\n" +
         table(latency, kLatencyTexts, kLatencyColumns);
}

std::string read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw Error(ErrorCode::kNotFound, file.string() + ": cannot be read");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void replace_all(std::string& text, std::string_view from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

}  // namespace

std::string html_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

// A label that reads like one of these attributes is changed with them, and stays a label.
std::string inline_svg(std::string_view file, const std::string& prefix) {
  const size_t begin = file.find("<svg");
  if (begin == std::string_view::npos) throw Error(ErrorCode::kInternal, "gnuplot wrote an SVG file without <svg>");
  std::string svg(file.substr(begin));
  for (const char quote : {'\'', '"'}) {
    const std::string q(1, quote);
    replace_all(svg, " id=" + q, " id=" + q + prefix);
    replace_all(svg, "xlink:href=" + q + "#", "xlink:href=" + q + "#" + prefix);
  }
  replace_all(svg, "url(#", "url(#" + prefix);
  return svg;
}

void write_plot_page(const std::filesystem::path& file, const std::string& title, const PlotInput& input,
                     const std::vector<Figure>& figures, const std::filesystem::path& folder) {
  std::string html = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" + html_escaped(title) +
                     "</title><style>" + kStyle + "</style></head><body>\n<h1>" + html_escaped(title) + "</h1>\n";
  for (const Figure& figure : figures) {
    html += "<figure><figcaption>" + html_escaped(figure.caption) + "</figcaption>\n" +
            inline_svg(read_file(folder / (figure.name + ".svg")), figure.name + "_") + "</figure>\n";
  }
  html += tables(input) + sources(input) + "</body></html>\n";
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << html;
  if (!out.flush()) throw Error(ErrorCode::kUnavailable, file.string() + ": cannot be written");
}

}  // namespace scd
