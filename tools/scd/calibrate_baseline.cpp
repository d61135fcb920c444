#include "tools/scd/calibrate_baseline.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <optional>

#include "common/base/error.h"
#include "common/codec/registry.h"
#include "common/model/fingerprint.h"
#include "tools/scd/calibrate_rd.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

std::vector<CodedUnit> spans_of(const std::vector<std::string>& native) {
  std::vector<CodedUnit> spans;
  for (const std::string& text : native) {
    const std::vector<RdPlanOptions::Span> parsed = parse_spans(text);
    if (parsed.empty()) continue;  // "none": as the search finds it
    if (parsed.size() > 1) {
      throw Error(ErrorCode::kInvalidArgument,
                  "--native " + text + ": codec droidspeak has one span; separate candidates by commas");
    }
    spans.push_back({parsed[0].first, parsed[0].last - parsed[0].first + 1, true});
  }
  return spans;
}

std::string layers_text(const CodedUnit& span) {
  return std::to_string(span.first_layer) + "-" + std::to_string(span.end() - 1);
}

void print_search(const BaselineResult& result) {
  if (result.search.empty()) return;
  TextTable table({"critical layers", "bytes/token", "KL (validation)", ""});
  for (const SpanReport& report : result.search) {
    const bool chosen = std::ranges::find(result.decoder.plan.units, report.span) != result.decoder.plan.units.end();
    table.add_row({layers_text(report.span), format_fixed(report.measured.bytes_per_token, 0),
                   format_fixed(report.measured.kl, 5), chosen ? "<- chosen" : ""});
  }
  table.print(std::cout);
  std::cout << "\n";
}

void print_codec(const BaselineResult& result) {
  if (result.decoder.codec == CodecId::kDroidSpeak) {
    std::cout << "plan: " << to_string(result.decoder.plan) << "\n";
    return;
  }
  const auto touched = std::ranges::count_if(result.decoder.lora, &LoraDeltaDecoderLayer::touched);
  std::cout << "the adapter changes keys or values of " << touched << " of " << result.decoder.lora.size()
            << " layers\n";
}

void print_prediction(const BaselineResult& result, double seconds) {
  const CodecPrediction& prediction = result.decoder.prediction;
  std::cout << "KL on " << result.decoder.calibration.held_out_tokens << " held-out tokens "
            << format_fixed(prediction.kl, 5) << ", at most " << format_fixed(prediction.kl_upper, 5) << " (95 %), "
            << format_fixed(prediction.bytes_per_token, 0) << " bytes/token, "
            << format_fixed(prediction.ratio_to_bf16, 2) << "x smaller than BF16, " << format_fixed(seconds, 1)
            << " s\n";
}

nlohmann::ordered_json summary_row(const BaselineResult& result, double seconds) {
  const CodecPrediction& prediction = result.decoder.prediction;
  nlohmann::ordered_json search = nlohmann::ordered_json::array();
  for (const SpanReport& report : result.search) {
    search.push_back({{"layers", layers_text(report.span)},
                      {"kl", report.measured.kl},
                      {"bytes_per_token", report.measured.bytes_per_token}});
  }
  return {{"codec", to_string(result.decoder.codec)},
          {"level", 0},
          {"task", "calibration"},
          {"kl_answer", prediction.kl},
          {"kl_answer_upper", prediction.kl_upper},
          {"bytes_per_token", prediction.bytes_per_token},
          {"ratio_to_bf16", prediction.ratio_to_bf16},
          {"tokens", result.decoder.calibration.tokens},
          {"plan", to_string(result.decoder.plan)},
          {"search", std::move(search)},
          {"calibration_ms", seconds * 1000}};
}

void require_limit(const BaselineResult& result, double max_kl) {
  const double kl = result.decoder.prediction.kl_upper;
  if (max_kl == 0 || kl <= max_kl) return;
  throw Error(ErrorCode::kFailedPrecondition,
              "the loss constraint cannot be met: the bound of KL on held-out text is " + format_fixed(kl, 5) +
                  ", --max-kl " + format_fixed(max_kl, 5) + "; nothing was written");
}

BaselineResult calibrate_baseline(const BaselineCommand& command) {
  if (command.codec == CodecId::kLoraDelta) {
    return calibrate_lora_delta(command.input, LoraAdapter(command.consumer_adapter), command.options);
  }
  const std::vector<CodedUnit> spans = spans_of(command.native);
  if (command.encoder != nullptr) {
    if (!spans.empty() || command.options.critical_layers > 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  "--add-consumer keeps the span of the encoder: --native and --critical-layers are refused beside it");
    }
    return calibrate_droidspeak_consumer(command.input, *command.encoder, command.options);
  }
  BaselineOptions options = command.options;
  options.spans = spans;
  return calibrate_droidspeak(command.input, options);
}

}  // namespace

void add_baseline_options(CLI::App& command, BaselineOptions& options) {
  command
      .add_option("--critical-layers", options.critical_layers,
                  "droidspeak without --native: length of the spans that are measured; 0: a quarter of the layers")
      ->check(CLI::Range(0, 4096));
}

void require_adapter_of(const ModelIdentity& producer, const std::filesystem::path& consumer,
                        const std::filesystem::path& adapter) {
  if (adapter.empty()) {
    throw Error(ErrorCode::kFailedPrecondition,
                "codec lora_delta sends what a LoRA adapter adds to the producer: the consumer has none; give "
                "--consumer-adapter");
  }
  const std::string base = fingerprint_model(consumer, std::nullopt).weights;
  if (base == producer.weights) return;
  throw Error(ErrorCode::kFailedPrecondition,
              "codec lora_delta: the producer is not the base of the consumer's adapter: producer weights " +
                  producer.weights.substr(0, 16) + ", base of the consumer " + base.substr(0, 16));
}

void calibrate_and_write_baseline(BaselineCommand command) {
  const auto start = std::chrono::steady_clock::now();
  BaselineResult result = calibrate_baseline(command);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print_search(result);
  print_codec(result);
  print_prediction(result, seconds);
  Report report;
  report.add_row(summary_row(result, seconds));
  report.write(command.json);
  require_limit(result, command.max_kl);
  if (command.encoder == nullptr) {
    write_artifact(command.out, result.encoder, result.decoder);
  } else {
    add_decoder(command.out, result.decoder);
  }
  std::cout << "wrote " << command.out.string() << ": encoder " << to_hex(result.decoder.encoder_id).substr(0, 16)
            << ", consumer " << result.decoder.consumer.weights.substr(0, 16) << "\n";
}

}  // namespace scd
