#include "tools/scd/codec_check.h"

#include <algorithm>
#include <numeric>

#include "common/base/error.h"
#include "common/log/progress.h"
#include "tools/scd/answer_score.h"

namespace scd {
namespace {

int64_t longest_of(std::span<const TokenWindow> windows) {
  size_t longest = 0;
  for (const TokenWindow& window : windows) longest = std::max(longest, window.size());
  return static_cast<int64_t>(longest);
}

}  // namespace

double raw_bytes_per_token(const CodecModel& consumer, bool exact_layer0) {
  return 4.0 * static_cast<double>((consumer.layers - (exact_layer0 ? 1 : 0)) * consumer.kv_width());
}

std::vector<CheckedCodec> check_codecs(const Model& producer, const Model& consumer, const ScoredText& text,
                                       const CacheExperimentOptions& options, std::span<const CodecUnderCheck> codecs,
                                       const std::string& purpose) {
  CacheExperiment experiment(producer, consumer, longest_of(text.windows), options);
  std::vector<const Encoder*> encoders;
  for (const CodecUnderCheck& codec : codecs) encoders.push_back(&codec.encoder);
  std::vector<CheckedCodec> sums(codecs.size());
  std::vector<std::vector<double>> kl_sums(codecs.size());  // by codec and context
  std::vector<double> rows;                                 // that are scored, by context
  int64_t tokens = 0;
  Progress progress(purpose);
  for (size_t first = 0, count = 0; first < text.windows.size(); first += count) {
    const std::span<const TokenWindow> windows = std::span(text.windows).subspan(first);
    count = windows_of_a_context(windows);
    experiment.set_prompts({windows.begin(), windows.begin() + static_cast<std::ptrdiff_t>(count)}, encoders);
    if (experiment.handover() <= options.sinks) continue;
    const std::vector<std::vector<TokenId>> nothing(count);
    const std::span<const int64_t> scored = std::span(text.scored).subspan(first, count);
    const std::vector<Continuation> truth = experiment.run_all(nothing, scored);
    rows.push_back(0);
    for (const Continuation& of_prompt : truth) rows.back() += static_cast<double>(of_prompt.rows);
    for (size_t c = 0; c < codecs.size(); ++c) {
      const RebuildAccount account = experiment.rebuild(codecs[c].encoder, codecs[c].decoder, codecs[c].caps);
      sums[c].rebuild_us += 1000 * (account.decode_ms + account.native_ms);
      sums[c].prediction.bytes_per_token += static_cast<double>(account.payload_bytes);
      const std::vector<Continuation> rebuilt = experiment.run_all(nothing, scored);
      kl_sums[c].push_back(0);
      for (size_t i = 0; i < count; ++i) {
        const std::vector<double> kl = kl_divergence(truth[i], rebuilt[i]);
        kl_sums[c].back() = std::accumulate(kl.begin(), kl.end(), kl_sums[c].back());
      }
      if (c == 0) tokens += account.tokens;
      progress.update(
          (static_cast<double>(first) + static_cast<double>(count * (c + 1)) / static_cast<double>(codecs.size())) /
          static_cast<double>(text.windows.size()));
    }
  }
  progress.finish();
  const double all_rows = std::accumulate(rows.begin(), rows.end(), 0.0);
  if (all_rows == 0) throw Error(ErrorCode::kInvalidArgument, "every text to check on is too short to hand over");
  const double raw_bytes = raw_bytes_per_token(codec_model_of(consumer.config()), options.exact_layer0);
  for (size_t c = 0; c < sums.size(); ++c) {
    auto& [prediction, rebuild_us] = sums[c];
    rebuild_us /= static_cast<double>(tokens);
    prediction.kl = std::accumulate(kl_sums[c].begin(), kl_sums[c].end(), 0.0) / all_rows;
    prediction.kl_upper = bootstrap_upper_mean(kl_sums[c], rows);
    prediction.bytes_per_token /= static_cast<double>(tokens);
    prediction.ratio_to_bf16 = raw_bytes / prediction.bytes_per_token;
  }
  return sums;
}

}  // namespace scd
