#include "tools/scd/recheck.h"

#include <algorithm>
#include <iostream>

#include "common/base/error.h"
#include "common/codec/registry.h"
#include "tools/scd/codec_check.h"
#include "tools/scd/report.h"
#include "tools/scd/scored_text.h"

namespace scd {
namespace {

void require_other_text(const CalibrationText& text, const CalibrationRecord& fitted) {
  for (const std::string& file : text.file_sha256) {
    if (std::ranges::find(fitted.text_sha256, file) == fitted.text_sha256.end()) continue;
    throw Error(ErrorCode::kFailedPrecondition, "--check-text: the artifact was fitted on the file with SHA-256 " +
                                                    file + "; check it on text that it has not seen");
  }
}

void print_levels(const std::vector<CodecPrediction>& levels, size_t contexts, int64_t tokens) {
  TextTable table({"level", "bytes/token", "vs BF16", "KL (held out)", "95 % bound"});
  for (size_t level = 0; level < levels.size(); ++level) {
    const CodecPrediction& found = levels[level];
    table.add_row({std::to_string(level), format_fixed(found.bytes_per_token, 0),
                   format_fixed(found.ratio_to_bf16, 1) + "x", format_fixed(found.kl, 4),
                   format_fixed(found.kl_upper, 4)});
  }
  table.print(std::cout);
  std::cout << "\non " << contexts << " contexts, " << tokens << " tokens\n";
}

nlohmann::ordered_json level_row(const ArtifactDecoder& decoder, const CodecPrediction& found, size_t level) {
  return {{"codec", to_string(decoder.codec)},
          {"level", level},
          {"task", "check"},
          {"consumer", decoder.consumer.weights},
          {"kl_answer", found.kl},
          {"kl_answer_upper", found.kl_upper},
          {"bytes_per_token", found.bytes_per_token},
          {"ratio_to_bf16", found.ratio_to_bf16},
          {"held_out_tokens", decoder.calibration.held_out_tokens}};
}

}  // namespace

std::vector<CodecPrediction> check_levels(const CalibrationInput& input, const ArtifactEncoder& encoder,
                                          const ArtifactDecoder& decoder, CacheExperimentOptions options) {
  const LayerPlan* plan = decoder.calibrated_plan();
  options.exact_layer0 = plan == nullptr || plan->exact_layers > 0;
  const auto sender = make_encoder(encoder.codec, encoder.model, &encoder, input.producer.device());
  const auto receiver = make_decoder(encoder.codec, encoder.model, decoder.model, &decoder,
                                     {input.consumer.device(), input.consumer.precision()});
  std::vector<CodecUnderCheck> codecs;
  for (int32_t level = 0; level < sender->levels(); ++level) codecs.push_back({*sender, *receiver, {.level = level}});
  std::vector<CodecPrediction> found;
  for (const CheckedCodec& level : check_codecs(input.producer, input.consumer, held_out_text(input, options), options,
                                                codecs, "checking the levels on held-out text")) {
    found.push_back(level.prediction);
  }
  return found;
}

void recheck_and_write(const RecheckCommand& command) {
  const CalibrationInput& input = command.input;
  const ArtifactEncoder encoder = load_encoder(command.out);
  (void)check_compatible(encoder, input.producer_identity).value_or_throw();
  ArtifactDecoder decoder = load_decoder(command.out, input.consumer_identity.weights);
  (void)check_compatible(decoder, input.producer_identity, input.consumer_identity).value_or_throw();
  require_other_text(input.text, encoder.calibration);
  require_other_text(input.text, decoder.calibration);

  const std::vector<CodecPrediction> found = check_levels(input, encoder, decoder, command.experiment);
  decoder.prediction = found.front();
  if (has_levels(decoder.codec)) decoder.levels = found;
  decoder.calibration.held_out_tokens = count_tokens(input.text.held_out.windows);
  print_levels(found, one_of_each_context(input.text.held_out).windows.size(), decoder.calibration.held_out_tokens);
  Report report;
  for (size_t level = 0; level < found.size(); ++level) report.add_row(level_row(decoder, found[level], level));
  report.write(command.json);

  const double least = std::ranges::min(found, {}, &CodecPrediction::kl_upper).kl_upper;
  if (command.max_kl > 0 && least > command.max_kl) {
    throw Error(ErrorCode::kFailedPrecondition,
                "the loss constraint cannot be met: the bound of KL on held-out text is at least " +
                    format_fixed(least, 5) + ", --max-kl " + format_fixed(command.max_kl, 5) + "; nothing was written");
  }
  add_decoder(command.out, decoder);
  std::cout << "wrote the levels of consumer " << decoder.consumer.weights.substr(0, 16) << " in "
            << command.out.string() << "\n";
}

}  // namespace scd
