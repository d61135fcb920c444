#include "tools/scd/codec_check.h"

#include <algorithm>
#include <numeric>

#include "common/base/error.h"
#include "common/log/progress.h"

namespace scd {
namespace {

double sum_of(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

int64_t longest_of(std::span<const TokenWindow> windows) {
  size_t longest = 0;
  for (const TokenWindow& window : windows) longest = std::max(longest, window.size());
  return static_cast<int64_t>(longest);
}

// BF16 keys and values of the layers that codecs send, a token.
double raw_bytes_per_token(const ModelConfig& consumer, const CacheExperimentOptions& options) {
  const int64_t width = int64_t{consumer.kv_heads} * consumer.head_dim;
  return 4.0 * static_cast<double>((consumer.layers - (options.exact_layer0 ? 1 : 0)) * width);
}

}  // namespace

std::vector<CodecPrediction> check_codecs(const Model& producer, const Model& consumer,
                                          std::span<const TokenWindow> windows, const CacheExperimentOptions& options,
                                          std::span<const CodecUnderCheck> codecs, const std::string& purpose) {
  CacheExperiment experiment(producer, consumer, longest_of(windows), options);
  std::vector<const Encoder*> encoders;
  for (const CodecUnderCheck& codec : codecs) encoders.push_back(&codec.encoder);
  std::vector<CodecPrediction> sums(codecs.size());
  int64_t tokens = 0, rows = 0;
  Progress progress(purpose);
  for (size_t i = 0; i < windows.size(); ++i) {
    if (handover_tokens(std::ssize(windows[i]), options.suffix) <= options.sinks) continue;
    experiment.set_prompt(windows[i], encoders);
    const Continuation truth = experiment.run({});
    for (size_t c = 0; c < codecs.size(); ++c) {
      const RebuildAccount account = experiment.rebuild(codecs[c].encoder, codecs[c].decoder, {});
      sums[c].bytes_per_token += static_cast<double>(account.payload_bytes);
      sums[c].kl += sum_of(kl_divergence(truth, experiment.run({})));
      if (c == 0) tokens += account.tokens;
      progress.update(static_cast<double>(i * codecs.size() + c + 1) /
                      static_cast<double>(windows.size() * codecs.size()));
    }
    rows += truth.rows;
  }
  progress.finish();
  if (rows == 0) throw Error(ErrorCode::kInvalidArgument, "every text to check on is too short to hand over");
  for (CodecPrediction& sum : sums) {
    sum.kl /= static_cast<double>(rows);
    sum.bytes_per_token /= static_cast<double>(tokens);
    sum.ratio_to_bf16 = raw_bytes_per_token(consumer.config(), options) / sum.bytes_per_token;
  }
  return sums;
}

}  // namespace scd
