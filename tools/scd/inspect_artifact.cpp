#include "tools/scd/inspect_artifact.h"

#include <ostream>

#include "common/codec/artifact.h"
#include "tools/scd/report.h"

namespace scd {
namespace {

std::string abbreviated(const std::string& digest) { return digest.empty() ? "none" : digest.substr(0, 16) + "…"; }

void print_model(std::ostream& out, const char* role, const ModelIdentity& identity) {
  out << role << ": weights " << abbreviated(identity.weights) << ", tokenizer " << abbreviated(identity.tokenizer)
      << ", RoPE " << identity.rope << "\n";
}

void print_calibration(std::ostream& out, const CalibrationRecord& record) {
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

}  // namespace

bool looks_like_artifact(const std::filesystem::path& directory) {
  return std::filesystem::exists(directory / "encoder" / "codec.json");
}

void print_artifact(const std::filesystem::path& directory, std::ostream& out) {
  const ArtifactEncoder encoder = load_encoder(directory);
  const CodecModel& model = encoder.model;
  out << "codec artifact scd, version " << kArtifactVersion << ", encoder " << to_hex(encoder.id) << "\n";
  print_model(out, "producer", encoder.producer);
  out << "  " << model.layers << " layers, " << model.kv_heads << " KV heads of " << model.head_dim << ", hidden "
      << model.hidden << "; latent fitted with consumer " << abbreviated(encoder.fitted_with) << "\n";
  print_calibration(out, encoder.calibration);
  print_layers(out, encoder);
  for (const std::string& consumer : list_decoders(directory)) {
    const ArtifactDecoder decoder = load_decoder(directory, consumer);
    out << "\n";
    print_model(out, "consumer", decoder.consumer);
    print_calibration(out, decoder.calibration);
    out << "  predicted: KL " << format_fixed(decoder.prediction.kl, 5) << ", "
        << format_fixed(decoder.prediction.bytes_per_token, 0) << " bytes/token, "
        << format_fixed(decoder.prediction.ratio_to_bf16, 2) << "x smaller than BF16\n";
    if (decoder.encoder_id != encoder.id) out << "  belongs to another encoder: it will be refused\n";
  }
}

}  // namespace scd
