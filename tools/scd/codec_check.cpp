#include "tools/scd/codec_check.h"

#include <algorithm>
#include <numeric>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "tools/scd/calibration.h"

namespace scd {
namespace {

double sum_of(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

int64_t longest_of(std::span<const TokenWindow> windows) {
  size_t longest = 0;
  for (const TokenWindow& window : windows) longest = std::max(longest, window.size());
  return static_cast<int64_t>(longest);
}

}  // namespace

double raw_bytes_per_token(const CodecModel& consumer, bool exact_layer0) {
  return 4.0 * static_cast<double>((consumer.layers - (exact_layer0 ? 1 : 0)) * consumer.kv_width());
}

std::vector<CheckedCodec> check_codecs(const Model& producer, const Model& consumer,
                                       std::span<const TokenWindow> windows, const CacheExperimentOptions& options,
                                       std::span<const CodecUnderCheck> codecs, const std::string& purpose) {
  CacheExperiment experiment(producer, consumer, longest_of(windows), options);
  std::vector<const Encoder*> encoders;
  for (const CodecUnderCheck& codec : codecs) encoders.push_back(&codec.encoder);
  std::vector<CheckedCodec> sums(codecs.size());
  int64_t tokens = 0, rows = 0;
  Progress progress(purpose);
  for (size_t i = 0; i < windows.size(); ++i) {
    if (handover_tokens(std::ssize(windows[i]), options.suffix) <= options.sinks) continue;
    experiment.set_prompt(windows[i], encoders);
    const Continuation truth = experiment.run({});
    for (size_t c = 0; c < codecs.size(); ++c) {
      if (codecs[c].prepare) codecs[c].prepare(windows[i]);
      const RebuildAccount account = experiment.rebuild(codecs[c].encoder, codecs[c].decoder, codecs[c].caps);
      sums[c].rebuild_us += 1000 * (account.decode_ms + account.native_ms);
      sums[c].prediction.bytes_per_token += static_cast<double>(account.payload_bytes);
      sums[c].prediction.kl += sum_of(kl_divergence(truth, experiment.run({})));
      if (c == 0) tokens += account.tokens;
      progress.update(static_cast<double>(i * codecs.size() + c + 1) /
                      static_cast<double>(windows.size() * codecs.size()));
    }
    rows += truth.rows;
  }
  progress.finish();
  if (rows == 0) throw Error(ErrorCode::kInvalidArgument, "every text to check on is too short to hand over");
  const double raw_bytes = raw_bytes_per_token(codec_model_of(consumer.config()), options.exact_layer0);
  for (auto& [prediction, rebuild_us] : sums) {
    rebuild_us /= static_cast<double>(tokens);
    prediction.kl /= static_cast<double>(rows);
    prediction.bytes_per_token /= static_cast<double>(tokens);
    prediction.ratio_to_bf16 = raw_bytes / prediction.bytes_per_token;
  }
  return sums;
}

}  // namespace scd
