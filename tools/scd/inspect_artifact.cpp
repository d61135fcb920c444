#include "tools/scd/inspect_artifact.h"

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/rd/rd_quantiser.h"
#include "common/codec/registry.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

std::string abbreviated(const std::string& digest) { return digest.empty() ? "none" : digest.substr(0, 16) + "…"; }

void print_model(std::ostream& out, const char* role, const ModelIdentity& identity) {
  out << role << ": weights " << abbreviated(identity.weights) << ", tokenizer " << abbreviated(identity.tokenizer)
      << ", RoPE " << identity.rope << "\n";
}

void print_calibration(std::ostream& out, const CalibrationRecord& record) {
  if (record.made_up()) {
    out << "  not calibrated: maps are random, answers mean nothing\n";
    return;
  }
  out << "  calibrated on " << record.tokens << " tokens of " << record.text_sha256.size() << " file(s), "
      << record.held_out_tokens << " held out, seed " << record.seed << ", ridge " << record.ridge << "\n";
}

void print_layers(std::ostream& out, const ArtifactEncoder& encoder) {
  TextTable table({"layer", "sent as", "rank K", "rank V", "rank x", "values/token", "of BF16 K and V"});
  for (size_t i = 0; i < encoder.layers.size(); ++i) {
    const ScdLayerEncoder& layer = encoder.layers[i];
    const int64_t values =
        layer.is_patch() ? layer.hidden.rows : (layer.key.rows + layer.value.rows) * encoder.model.kv_heads;
    const auto rank = [](const DenseMatrix& map) { return map.empty() ? std::string("-") : std::to_string(map.rows); };
    table.add_row({std::to_string(i), layer.is_patch() ? "Patch" : "Reuse", rank(layer.key), rank(layer.value),
                   rank(layer.hidden), std::to_string(values),
                   format_percent(static_cast<double>(values) / static_cast<double>(2 * encoder.model.kv_width()))});
  }
  table.print(out);
}

void print_rd_layers(std::ostream& out, const ArtifactEncoder& encoder) {
  const RdQuantiserSettings& quantiser = encoder.rd.quantiser;
  std::vector<std::string> header{"unit", "components"};
  for (size_t level = 0; level < quantiser.steps.size(); ++level) header.push_back("level " + std::to_string(level));
  out << "  plan: " << to_string(encoder.rd.plan) << "\n";
  TextTable table(header);
  for (size_t layer = 0; layer < quantiser.deviations.size(); ++layer) {
    std::vector<std::string> row{to_string(LayerPlan{0, {encoder.rd.plan.units[layer]}}),
                                 std::to_string(quantiser.deviations[layer].size())};
    for (const float step : quantiser.steps) {
      const auto sent = std::ranges::count_if(quantiser.deviations[layer],
                                              [&](float deviation) { return deviation >= kRdSmallestRatio * step; });
      row.push_back(std::to_string(sent));
    }
    table.add_row(row);
  }
  table.print(out);
}

void print_adapter(std::ostream& out, const ArtifactEncoder& encoder) {
  TextTable table({"layer", "adapter rank K", "adapter rank V", "values/token beside BF16 K and V"});
  for (size_t i = 0; i < encoder.lora.size(); ++i) {
    const LoraDeltaEncoderLayer& layer = encoder.lora[i];
    table.add_row({std::to_string(i), std::to_string(layer.key.rows), std::to_string(layer.value.rows),
                   std::to_string(layer.key.rows + layer.value.rows)});
  }
  table.print(out);
}

void print_prediction(std::ostream& out, const std::string& what, const CodecPrediction& prediction) {
  out << "  " << what << ": KL " << format_fixed(prediction.kl, 5) << ", at most "
      << format_fixed(prediction.kl_upper, 5) << " (95 %), " << format_fixed(prediction.bytes_per_token, 0)
      << " bytes/token, " << format_fixed(prediction.ratio_to_bf16, 2) << "x smaller than BF16\n";
}

void print_networks(std::ostream& out, const RdDecoderMaps& maps) {
  std::string networks;
  for (size_t unit = 0; unit < maps.units.size(); ++unit) {
    const SmallNetwork& network = maps.units[unit].network;
    if (network.empty()) continue;
    networks += (networks.empty() ? "" : ", ") + to_string(LayerPlan{0, {maps.plan.units[unit]}}) + " (" +
                std::to_string(network.output.rows) + ")";
  }
  if (!networks.empty()) out << "  networks of units (hidden units): " << networks << "\n";
}

}  // namespace

bool looks_like_artifact(const std::filesystem::path& directory) {
  return std::filesystem::exists(directory / "encoder" / "codec.json");
}

void print_artifact(const std::filesystem::path& directory, std::ostream& out) {
  const ArtifactEncoder encoder = load_encoder(directory);
  const CodecModel& model = encoder.model;
  out << "codec artifact " << to_string(encoder.codec) << ", version " << kArtifactVersion << ", encoder "
      << to_hex(encoder.id) << "\n";
  print_model(out, "producer", encoder.producer);
  out << "  " << model.layers << " layers, " << model.kv_heads << " KV heads of " << model.head_dim << ", hidden "
      << model.hidden << "; fitted with consumer " << abbreviated(encoder.fitted_with);
  for (const std::string& consumer : encoder.also_fitted_with) out << ", " << abbreviated(consumer);
  out << "\n";
  print_calibration(out, encoder.calibration);
  switch (encoder.codec) {
    case CodecId::kScd: print_layers(out, encoder); break;
    case CodecId::kDroidSpeak: out << "  plan: " << to_string(encoder.plan) << "\n"; break;
    case CodecId::kLoraDelta: print_adapter(out, encoder); break;
    default: print_rd_layers(out, encoder);
  }
  for (const std::string& consumer : list_decoders(directory)) {
    const ArtifactDecoder decoder = load_decoder(directory, consumer);
    out << "\n";
    print_model(out, "consumer", decoder.consumer);
    print_calibration(out, decoder.calibration);
    print_networks(out, decoder.rd);
    if (decoder.levels.empty()) print_prediction(out, "predicted", decoder.prediction);
    for (size_t level = 0; level < decoder.levels.size(); ++level) {
      print_prediction(out, "level " + std::to_string(level), decoder.levels[level]);
    }
    if (decoder.encoder_id != encoder.id) out << "  belongs to another encoder: it will be refused\n";
  }
}

}  // namespace scd
