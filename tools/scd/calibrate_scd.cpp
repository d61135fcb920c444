#include "tools/scd/calibrate_scd.h"

#include <chrono>
#include <iostream>

#include "common/base/error.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

// As in tables: the share of the signal that is lost.
std::string loss_cell(double loss) { return loss > 0 ? format_fixed(100 * loss, 3) + " %" : "-"; }

void print_layers(const CalibrationResult& result) {
  TextTable table({"layer", "sent as", "loss K", "loss V", "KL gain if true", "loss x (Patch)"});
  for (size_t layer = 0; layer < result.layers.size(); ++layer) {
    const LayerReport& report = result.layers[layer];
    table.add_row({std::to_string(layer), report.patched ? "Patch" : "Reuse", loss_cell(report.key_loss),
                   loss_cell(report.value_loss), report.gain != 0 ? format_fixed(report.gain, 5) : "-",
                   loss_cell(report.patch_loss)});
  }
  table.print(std::cout);
}

void print_search(const CalibrationResult& result) {
  if (result.steps.empty()) {
    if (result.reuse_kl > 0) {
      std::cout << "\nno layer is patched; KL of all Reuse on validation text " << format_fixed(result.reuse_kl, 5)
                << "\n";
    }
    return;
  }
  TextTable table({"patched", "added layer", "KL (validation)", "bytes/token", ""});
  const size_t budget = result.encoder.patch_layers().size();
  table.add_row({"0", "-", format_fixed(result.reuse_kl, 5), "-", budget == 0 ? "<- chosen" : ""});
  for (size_t k = 0; k < result.steps.size(); ++k) {
    const PatchStep& step = result.steps[k];
    table.add_row({std::to_string(k + 1), std::to_string(step.layer), format_fixed(step.kl, 5),
                   format_fixed(step.bytes_per_token, 0), k + 1 == budget ? "<- chosen" : ""});
  }
  std::cout << "\n";
  table.print(std::cout);
}

void print_summary(const CalibrationResult& result, const CalibrationOptions& options, double seconds) {
  const CodecPrediction& prediction = result.decoder.prediction;
  const CalibrationRecord& record = result.decoder.calibration;
  std::cout << "\nfitted on " << record.tokens << " tokens, checked on " << record.held_out_tokens
            << " held out; exact: layer 0 and the first " << options.experiment.sinks << " tokens; the last "
            << options.experiment.suffix << " run natively\n"
            << "KL on held-out text " << format_fixed(prediction.kl, 5) << ", at most "
            << format_fixed(prediction.kl_upper, 5) << " (95 %)";
  if (result.held_out_reuse_kl > 0) std::cout << " (all Reuse " << format_fixed(result.held_out_reuse_kl, 5) << ")";
  std::cout << ", " << format_fixed(prediction.bytes_per_token, 0) << " bytes/token, "
            << format_fixed(prediction.ratio_to_bf16, 2) << "x smaller than BF16, " << format_fixed(seconds, 1)
            << " s\n";
}

nlohmann::ordered_json summary_row(const CalibrationResult& result, double seconds) {
  const CodecPrediction& prediction = result.decoder.prediction;
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const LayerReport& layer : result.layers) {
    layers.push_back({{"patched", layer.patched},
                      {"loss_key", layer.key_loss},
                      {"loss_value", layer.value_loss},
                      {"loss_patch", layer.patch_loss},
                      {"kl_gain", layer.gain}});
  }
  nlohmann::ordered_json steps = nlohmann::ordered_json::array();
  for (const PatchStep& step : result.steps) {
    steps.push_back({{"layer", step.layer}, {"kl", step.kl}, {"bytes_per_token", step.bytes_per_token}});
  }
  return {{"codec", "scd"},
          {"level", 0},
          {"task", "calibration"},
          {"kl_answer", prediction.kl},
          {"kl_answer_upper", prediction.kl_upper},
          {"kl_answer_reuse", result.held_out_reuse_kl},
          {"kl_validation_reuse", result.reuse_kl},
          {"bytes_per_token", prediction.bytes_per_token},
          {"ratio_to_bf16", prediction.ratio_to_bf16},
          {"tokens", result.decoder.calibration.tokens},
          {"patch_layers", result.encoder.patch_layers()},
          {"search", std::move(steps)},
          {"layers", std::move(layers)},
          {"calibration_ms", seconds * 1000}};
}

void require_limit(const CalibrationResult& result, double max_kl) {
  if (result.meets_max_kl) return;
  throw Error(ErrorCode::kFailedPrecondition,
              "the loss constraint cannot be met: the bound of KL on held-out text is " +
                  format_fixed(result.decoder.prediction.kl_upper, 5) + ", --max-kl " + format_fixed(max_kl, 5) +
                  " (see the table above); nothing was written. Allow higher ranks (--rank-key, --rank-value, "
                  "--rank-hidden), more --tokens, more --patch-layers, or a higher limit");
}

}  // namespace

void calibrate_and_write_scd(const ScdCommand& command) {
  const auto start = std::chrono::steady_clock::now();
  CalibrationResult result = command.encoder != nullptr
                                 ? calibrate_consumer(command.input, *command.encoder, command.options)
                                 : calibrate(command.input, command.options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print_layers(result);
  print_search(result);
  print_summary(result, command.options, seconds);
  Report report;
  report.add_row(summary_row(result, seconds));
  report.write(command.json);
  require_limit(result, command.options.max_kl);
  if (command.encoder != nullptr) {
    add_decoder(command.out, result.decoder);
  } else {
    write_artifact(command.out, result.encoder, result.decoder);
  }
  std::cout << "wrote " << command.out.string() << ": encoder " << to_hex(result.decoder.encoder_id).substr(0, 16)
            << ", consumer " << result.decoder.consumer.weights.substr(0, 16) << "\n";
}

}  // namespace scd
