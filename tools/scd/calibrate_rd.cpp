#include "tools/scd/calibrate_rd.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <iostream>
#include <sstream>

#include "common/base/error.h"
#include "common/codec/rd/rd_codec.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/registry.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

// "residual before 4, 96 directions"
std::string predicted_from(const AnchoredUnit& of, const RdUnitDecoder& decoder) {
  if (of.anchor < 0) return "-";
  const std::string text = "residual before " + std::to_string(of.anchor);
  if (decoder.anchor_basis.empty()) return text;
  return text + ", " + std::to_string(decoder.anchor_basis.columns) + " directions";
}

void print_units(const RdCalibrationResult& result) {
  const CodecModel& model = result.decoders.front().model;
  const LayerPlan& plan = result.decoders.front().rd.plan;
  std::vector<std::string> header{"unit", "predicted from", "KL if lost", "unpredictable", "components"};
  if (result.network_width > 0) header.insert(header.end(), {"left by regression", "of it, by network"});
  TextTable table(header);
  for (size_t i = 0; i < result.units.size(); ++i) {
    const RdUnitReport& report = result.units[i];
    std::vector<std::string> row{to_string(LayerPlan{0, {report.of.unit}}),
                                 predicted_from(report.of, result.decoders.front().rd.units[i]),
                                 format_fixed(report.energy, 2), format_percent(report.unpredictable / report.energy),
                                 std::to_string(result.encoder.rd.quantiser.deviations[i].size())};
    if (result.network_width > 0) {
      const double taken = 1 - report.left_with_network / report.left_by_regression;
      row.insert(row.end(),
                 {format_fixed(report.left_by_regression, 5), taken > 0 ? format_percent(taken) : "none: too little"});
    }
    table.add_row(row);
  }
  std::cout << "plan: " << to_string(plan) << "\nthe consumer runs " << format_percent(plan.native_share(model.layers))
            << " of its layers over the prefix\n\n";
  table.print(std::cout);
}

void print_levels(const RdCalibrationResult& result) {
  TextTable table({"consumer", "level", "bytes/token", "vs BF16", "KL (held out)", "95 % bound", "KL by the fit",
                   "bits over bound"});
  double unpredictable = 0;
  for (const RdUnitReport& unit : result.units) unpredictable += unit.unpredictable;
  for (const ArtifactDecoder& decoder : result.decoders) {
    for (size_t level = 0; level < decoder.levels.size(); ++level) {
      const CodecPrediction& prediction = decoder.levels[level];
      const RateBound* bound = level < result.bounds.size() ? &result.bounds[level] : nullptr;
      table.add_row({decoder.consumer.weights.substr(0, 8), std::to_string(level),
                     format_fixed(prediction.bytes_per_token, 0), format_fixed(prediction.ratio_to_bf16, 1) + "x",
                     format_fixed(prediction.kl, 4), format_fixed(prediction.kl_upper, 4),
                     bound == nullptr ? "-" : format_fixed(unpredictable + bound->distortion, 4),
                     bound == nullptr ? "-" : format_percent(bound->bits / bound->bound_bits - 1)});
    }
  }
  std::cout << "\n";
  table.print(std::cout);
}

void print_stages(const RdCalibrationResult& result) {
  TextTable table({"stage", "s", "ms/layer"});
  const auto layers = static_cast<double>(result.decoders.front().model.layers);
  for (const CalibrationStage& stage : result.stages) {
    table.add_row({stage.name, format_fixed(stage.seconds, 1), format_fixed(1000 * stage.seconds / layers, 0)});
  }
  std::cout << "\n";
  table.print(std::cout);
}

nlohmann::ordered_json level_row(const RdCalibrationResult& result, const ArtifactDecoder& decoder, size_t level,
                                 double seconds) {
  const CodecPrediction& prediction = decoder.levels[level];
  nlohmann::ordered_json row = {{"codec", to_string(decoder.codec)},
                                {"level", level},
                                {"task", "calibration"},
                                {"consumer", decoder.consumer.weights},
                                {"kl_answer", prediction.kl},
                                {"kl_answer_upper", prediction.kl_upper},
                                {"bytes_per_token", prediction.bytes_per_token},
                                {"ratio_to_bf16", prediction.ratio_to_bf16},
                                {"tokens", decoder.calibration.tokens},
                                {"decoder_network", result.network_width},
                                {"calibration_ms", seconds * 1000}};
  for (const CalibrationStage& stage : result.stages) row["stages_s"][stage.name] = stage.seconds;
  if (level < result.bounds.size()) {
    const RateBound& bound = result.bounds[level];
    row.update({{"bits_per_token", bound.bits},
                {"gaussian_bits_per_token", bound.bound_bits},
                {"kl_of_quantising", bound.distortion}});
  }
  return row;
}

std::vector<LayerPlan> plans_of(const RdCommandOptions& options, int32_t layers) {
  std::vector<LayerPlan> plans;
  const bool predicted = !options.no_prediction && options.calibration.codec == CodecId::kRd;
  for (const int32_t exact : options.exact_layers) {
    for (const int32_t group : options.groups) {
      for (const std::string& native : options.native) {
        plans.push_back(make_plan({exact, group, parse_spans(native), predicted}, layers));
        const std::string problem = rd_plan_problem(plans.back(), layers);
        if (!problem.empty()) throw Error(ErrorCode::kInvalidArgument, "--native " + native + ": " + problem);
      }
    }
  }
  return plans;
}

// "exact 0-4, groups of 3, native 12-24"; a span of one layer is Patch as published: "patch 17"
std::string outline(const LayerPlan& plan) {
  std::string text = plan.exact_layers == 0 ? "nothing exact" : "exact 0-" + std::to_string(plan.exact_layers - 1);
  int32_t group = 0;
  for (const CodedUnit& unit : plan.units) group = std::max(group, unit.residual ? 0 : unit.layers);
  text += group == 1 ? ", each layer alone" : ", groups of " + std::to_string(group);
  for (const CodedUnit& unit : plan.units) {
    if (!unit.residual) continue;
    const std::string first = std::to_string(unit.first_layer);
    text += unit.layers == 1 ? ", patch " + first : ", native " + first + "-" + std::to_string(unit.end() - 1);
  }
  return text + (plan.predicted ? "" : ", nothing predicted");
}

nlohmann::ordered_json search_row(const RdCalibrationResult& result, const RdPlanReport& report, size_t level) {
  const CodecPrediction& prediction = report.levels[level];
  return {{"codec", to_string(result.encoder.codec)},
          {"level", level},
          {"task", "search"},
          {"plan", outline(report.plan)},
          {"variant", to_string(report.variant)},
          {"decoder_network", report.network_width},
          {"anchor_share", report.anchor_share},
          {"native_share", report.native_share},
          {"rebuild_us_per_token", report.rebuild_us},
          {"kl_answer", prediction.kl},
          {"bytes_per_token", prediction.bytes_per_token},
          {"ratio_to_bf16", prediction.ratio_to_bf16},
          {"tokens", result.encoder.calibration.tokens}};
}

void print_search(const RdCalibrationResult& result) {
  if (result.search.empty()) return;
  TextTable table({"plan", "variant", "network", "anchor", "native", "us/token",
                   "KL (validation) at level: bytes/token", "KL gained per ms"});
  for (const RdPlanReport& report : result.search) {
    std::string levels;
    for (const CodecPrediction& level : report.levels) {
      levels +=
          (levels.empty() ? "" : "  ") + format_fixed(level.kl, 3) + ": " + format_fixed(level.bytes_per_token, 0);
    }
    table.add_row({outline(report.plan), std::string(to_string(report.variant)),
                   report.network_width > 0 ? std::to_string(report.network_width) : "none",
                   format_percent(report.anchor_share), format_percent(report.native_share),
                   format_fixed(report.rebuild_us, 0), levels, format_fixed(1000 * report.score, 2)});
  }
  table.print(std::cout);
  std::cout << "\n";
}

void require_limit(const RdCalibrationResult& result, double max_kl) {
  for (const ArtifactDecoder& decoder : result.decoders) {
    const double least = std::ranges::min(decoder.levels, {}, &CodecPrediction::kl_upper).kl_upper;
    if (max_kl == 0 || least <= max_kl) continue;
    throw Error(ErrorCode::kFailedPrecondition,
                "the loss constraint cannot be met: the bound of KL on held-out text is at least " +
                    format_fixed(least, 5) + " for consumer " + decoder.consumer.weights.substr(0, 16) + ", --max-kl " +
                    format_fixed(max_kl, 5) +
                    "; nothing was written. Allow more --tokens, lower --ratios or a higher limit, or give more text "
                    "to check on (--held-out), which narrows the bound");
  }
}

void write(const RdCommand& command, RdCalibrationResult& result) {
  if (command.encoder != nullptr) return add_decoder(command.out, result.decoders.front());
  write_artifact(command.out, result.encoder, result.decoders);
}

}  // namespace

std::vector<RdPlanOptions::Span> parse_spans(const std::string& text) {
  std::vector<RdPlanOptions::Span> spans;
  if (text == "none") return spans;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, '+');) {
    RdPlanOptions::Span span;
    const char* end = part.data() + part.size();
    const auto first = std::from_chars(part.data(), end, span.first);
    const bool dash = first.ec == std::errc() && first.ptr != end && *first.ptr == '-';
    const auto last = dash ? std::from_chars(first.ptr + 1, end, span.last) : first;
    if (!dash || last.ec != std::errc() || last.ptr != end || span.last < span.first) {
      throw Error(ErrorCode::kInvalidArgument,
                  "--native " + text + ": expected none or layers as first-last, for example 12-24 or 8-12+18-24");
    }
    spans.push_back(span);
  }
  return spans;
}

void add_rd_options(CLI::App& command, RdCommandOptions& options) {
  const auto list = [&](const char* name, auto& values, const char* text) {
    return command.add_option(name, values, text)->delimiter(',')->allow_extra_args(false)->capture_default_str();
  };
  list("--ratios", options.calibration.ratios, "Levels: how many times smaller than BF16, rising")
      ->check(CLI::Range(1.5, 10000.0));
  list("--exact-layers", options.exact_layers,
       "First layers whose keys and values the consumer computes; it predicts the others from there. Several values "
       "here, in --group or in --native: a search among all combinations")
      ->check(CLI::Range(0, 4096));
  list("--group", options.groups, "Layers coded together, at most")->check(CLI::Range(1, 4096));
  list("--native", options.native,
       "Layers that the consumer runs over the prefix from a coded residual stream: none, 12-24, or 8-12+18-24; 17-17 "
       "runs none of them: keys and values of layer 17 come from the stream as coded (Patch as published); "
       "droidspeak: candidates for its span of critical layers");
  command
      .add_option("--bandwidth-gbps", options.calibration.bandwidth_gbps,
                  "Of the link that a search weighs bytes against the consumer's time at")
      ->check(CLI::Range(0.001, 1000.0))
      ->capture_default_str();
  command
      .add_option("--max-native-share", options.calibration.max_native_share,
                  "Most of its layers that a searched plan may have the consumer run over the prefix")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  list("--variants", options.variants,
       "Ways to fit, each but full without a part of it, to see what the part is worth: full, no-metric, no-weights, "
       "head-shared, fixed-rank, principal-components; several: a search");
  command
      .add_option("--weigh", options.weigh,
                  "What an error costs is measured on the consumer's own answers to the questions of the text (prose: "
                  "its last tokens), or on the last tokens of the text as it is")
      ->check(CLI::IsMember({"answers", "text"}))
      ->capture_default_str();
  list("--decoder-network", options.calibration.network_widths,
       "Hidden units of a network that adds to what each unit's decoder gives what no regression tells, for no bytes "
       "but the consumer's time; left out where it does not help. 0: none; several: a search")
      ->check(CLI::Range(0, 65536));
  list("--anchor-share", options.calibration.anchor_shares,
       "Of what the consumer's own residual stream tells of its other layers, in KL: so much is predicted, of as few "
       "directions as that takes, which is less work for the decoder; the rest is left to the codes. Several: a search")
      ->check(CLI::Range(0.0, 1.0));
  command.add_flag("--no-prediction", options.no_prediction,
                   "Predict nothing from the consumer's first layers: all is in the codes");
}

void check_rd_options(const RdCommandOptions& options, bool add_consumer) {
  const std::vector<double>& ratios = options.calibration.ratios;
  if (!std::ranges::is_sorted(ratios) || ratios.size() > kRdMaxLevels) {
    throw Error(ErrorCode::kInvalidArgument, "--ratios: expected at most 16 numbers that rise");
  }
  for (const std::string& native : options.native) (void)parse_spans(native);
  if (options.calibration.codec == CodecId::kKvtc && options.variants != RdCommandOptions{}.variants) {
    throw Error(ErrorCode::kInvalidArgument, "--variants is of --codec rd: kvtc is fitted in one way");
  }
  if (options.calibration.codec == CodecId::kKvtc && std::ranges::max(options.calibration.network_widths) > 0) {
    throw Error(ErrorCode::kInvalidArgument, "--decoder-network is of --codec rd: decoders of kvtc are regressions");
  }
  const bool shares = options.calibration.anchor_shares != RdCalibrationOptions{}.anchor_shares;
  if (options.calibration.codec == CodecId::kKvtc && shares) {
    throw Error(ErrorCode::kInvalidArgument, "--anchor-share is of --codec rd: kvtc predicts nothing");
  }
  if (options.no_prediction && shares) {
    throw Error(ErrorCode::kInvalidArgument, "--anchor-share: with --no-prediction nothing is predicted");
  }
  if (add_consumer && options.calibration.network_widths.size() > 1) {
    throw Error(ErrorCode::kInvalidArgument, "--add-consumer: one width of --decoder-network; nothing is searched");
  }
  if (add_consumer && options.calibration.anchor_shares.size() > 1) {
    throw Error(ErrorCode::kInvalidArgument, "--add-consumer: one --anchor-share; nothing is searched");
  }
  for (const std::string& name : options.variants) {
    const RdVariant variant = parse_rd_variant(name);
    if (variant != RdVariant::kHeadShared || options.no_prediction) continue;
    throw Error(ErrorCode::kInvalidArgument, "--variants head-shared reads no anchor: give --no-prediction with it");
  }
}

void calibrate_and_write_rd(RdCommand command) {
  const auto start = std::chrono::steady_clock::now();
  RdCalibrationOptions& options = command.options.calibration;
  options.plans = plans_of(command.options, command.inputs.front().consumer.config().layers);
  options.weigh_on_answers = command.options.weigh == "answers";
  options.variants.clear();
  for (const std::string& variant : command.options.variants) options.variants.push_back(parse_rd_variant(variant));
  RdCalibrationResult result = command.encoder == nullptr
                                   ? calibrate_rd(command.inputs, options)
                                   : calibrate_rd_consumer(command.inputs.front(), *command.encoder, options);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  print_search(result);
  print_units(result);
  print_levels(result);
  print_stages(result);
  Report report;
  for (const RdPlanReport& searched : result.search) {
    for (size_t level = 0; level < searched.levels.size(); ++level) {
      report.add_row(search_row(result, searched, level));
    }
  }
  for (const ArtifactDecoder& decoder : result.decoders) {
    for (size_t level = 0; level < decoder.levels.size(); ++level) {
      report.add_row(level_row(result, decoder, level, seconds));
    }
  }
  report.write(command.json);
  require_limit(result, command.max_kl);
  write(command, result);
  const ArtifactDecoder& first = result.decoders.front();
  std::cout << "\nfitted on " << first.calibration.tokens << " tokens in " << format_fixed(seconds, 1) << " s; wrote "
            << command.out.string() << ": encoder " << to_hex(first.encoder_id).substr(0, 16);
  for (const ArtifactDecoder& decoder : result.decoders) {
    std::cout << ", consumer " << decoder.consumer.weights.substr(0, 16);
  }
  std::cout << "\n";
}

}  // namespace scd
