#include "decode_server/codec_policy.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "common/codec/registry.h"

namespace scd {
namespace {

constexpr double kMargin = 0.1;  // by so much another choice has to be better before it is taken
constexpr size_t kMostPeers = 1024;

constexpr double kBitsOfGigabit = 1e9;

double seconds_of(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

double coding_seconds(const CoderCost& cost, double rate) { return cost.bytes / rate + cost.seconds; }

std::optional<LevelPolicy> make_levels(const CodecOptions& codec, const ArtifactDecoder* artifact) {
  return artifact == nullptr ? std::nullopt : std::optional<LevelPolicy>(std::in_place, codec, *artifact);
}

}  // namespace

std::optional<double> CodecPolicy::Work::seconds() const {
  if (!rebuild.measured()) return std::nullopt;
  return rebuild.seconds_each() + (encode.measured() ? encode.seconds_each() : 0);
}

CodecPolicy::CodecPolicy(const CodecOptions& codec, const ArtifactDecoder* artifact, CoderCosts costs)
    : artifact_codec_(artifact == nullptr ? std::nullopt : std::optional(artifact->codec)),
      encoder_id_(artifact == nullptr ? Sha256Digest{} : artifact->encoder_id),
      levels_(make_levels(codec, artifact)),
      costs_(std::move(costs)) {}

CodecPolicy::Peer& CodecPolicy::peer(const std::string& endpoint) {
  if (peers_.size() >= kMostPeers && !peers_.contains(endpoint)) peers_.clear();
  return peers_[endpoint];
}

void CodecPolicy::observe(const TransferCost& cost) {
  std::scoped_lock lock(mutex_);
  peer(cost.endpoint).link.observe(static_cast<double>(cost.wire_bytes), seconds_of(cost.wire));
  link_.observe(static_cast<double>(cost.wire_bytes), seconds_of(cost.wire));
  if (cost.codec.id != CodecId::kRaw && cost.codec.id != artifact_codec_) return;
  Work& work = cost.codec.id == CodecId::kRaw ? plain_ : calibrated_;
  work.rebuild.observe(static_cast<double>(cost.tokens), seconds_of(cost.rebuild));
  work.encode.observe(static_cast<double>(cost.fresh_tokens), seconds_of(cost.encode));
}

CodecDecision CodecPolicy::present() const {
  std::scoped_lock lock(mutex_);
  if (last_auto_) return *last_auto_;
  CodecChoice codec{.id = artifact_codec_.value_or(CodecId::kRaw), .rank = {}};
  codec.rank.level = fixed_level();
  return {.codec = codec, .reason = "no request has been served yet"};
}

PageOrigin CodecPolicy::coarsest(const CompletionRequest& request, int64_t tokens) const {
  const bool coded = request.mode == TransferMode::kCodec || request.mode == TransferMode::kAuto;
  if (!coded || !needs_artifact(request.codec.id) || request.codec.id != artifact_codec_) return {};
  std::scoped_lock lock(mutex_);
  PageOrigin origin{.codec = request.codec, .encoder_id = encoder_id_};
  if (levels_ && request.level_open) origin.codec->rank.level = levels_->choose(tokens, rate(link_, 0));
  return origin;
}

CodecDecision CodecPolicy::choose(const CodecQuestion& question) {
  std::scoped_lock lock(mutex_);
  Peer& asked = peer(question.endpoint);
  const double link = rate(asked.link, question.declared_bytes_per_second);
  CodecDecision decision = decide(question, asked, link);
  if (decision.codec) decision.predicted_seconds_per_token = predict(*decision.codec, link);
  if (question.mode == TransferMode::kAuto) last_auto_ = decision;
  return decision;
}

CodecDecision CodecPolicy::decide(const CodecQuestion& question, Peer& peer, double link) {
  CodecDecision decision{.codec = question.codec};
  CodecChoice& codec = *decision.codec;
  const bool calibrated = needs_artifact(codec.id);
  if (calibrated && levels_ && question.level_open) codec.rank.level = levels_->choose(question.tokens, link);
  if (has_levels(codec.id) && question.form_open) {
    const bool before = peer.packed;
    codec.rank.packed = packed_pays(peer.packed, codec.rank.level, link);
    decision.changed = peer.packed != before;
    if (codec.rank.packed) decision.reason = "packed, because the link outruns the entropy coder";
  }
  if (question.mode == TransferMode::kCodec || question.mode == TransferMode::kOracle) return decision;
  if (!question.same_model) {
    if (!calibrated) return {.codec = std::nullopt, .reason = "the two models differ"};
    decision.reason = "the two models differ: only the artifact's codec may stand in";
    return decision;
  }
  static constexpr std::array kAll{Way::kCalibrated, Way::kRaw, Way::kLossless};
  const bool codes_allowed = calibrated && question.artifact_fits;
  const auto ways = std::span(kAll).subspan(codes_allowed ? 0 : 1);
  Kept& kept = codes_allowed ? peer.automatic : peer.exact;
  const Way way = keep_or_change(ways, kept.way, codec, link);
  const std::string compared = comparison(ways, codec, link);
  if (way == Way::kCalibrated) {
    decision.reason = compared + (decision.reason.empty() ? "" : "; ") + decision.reason;
  } else {
    decision = {.codec = CodecChoice{way == Way::kRaw ? CodecId::kRaw : CodecId::kLossless, {}}, .reason = compared};
  }
  decision.changed = decision.changed || !kept.told || kept.way != way;
  kept = {.way = way, .told = true};
  return decision;
}

double CodecPolicy::rate(const MeasuredRate& link, double declared) const {
  const MeasuredRate& measured = link.measured() ? link : link_;
  const bool bounded = declared > 0;  // it comes from outside
  if (!measured.measured()) return bounded ? declared : 0;
  return bounded ? std::min(declared, measured.per_second()) : measured.per_second();
}

bool CodecPolicy::packed_pays(bool& was_packed, int32_t level, double rate) const {
  const auto index = static_cast<size_t>(level);
  if (rate == 0 || index >= costs_.entropy.size()) return false;
  const double entropy = coding_seconds(costs_.entropy[index], rate);
  const double packed = coding_seconds(costs_.packed[index], rate);
  was_packed = was_packed ? !(entropy < (1 - kMargin) * packed) : packed < (1 - kMargin) * entropy;
  return was_packed;
}

std::optional<double> CodecPolicy::predict(const CodecChoice& codec, double rate) const {
  if (codec.id == CodecId::kRaw) return seconds(Way::kRaw, codec, rate);
  if (codec.id == CodecId::kLossless) return seconds(Way::kLossless, codec, rate);
  if (codec.id == artifact_codec_) return seconds(Way::kCalibrated, codec, rate);
  return std::nullopt;
}

// A token's; nothing where it is not known yet.
std::optional<double> CodecPolicy::seconds(Way way, const CodecChoice& calibrated, double rate) const {
  if (rate == 0) return std::nullopt;
  if (way != Way::kCalibrated) {
    const CoderCost& cost = way == Way::kRaw ? costs_.raw : costs_.lossless;
    return cost.bytes / rate + plain_.seconds().value_or(costs_.raw.seconds) + cost.seconds - costs_.raw.seconds;
  }
  const auto work = calibrated_.seconds();
  if (!work) return std::nullopt;
  double bytes = levels_->bytes_per_token(calibrated.rank.level);
  const auto level = static_cast<size_t>(calibrated.rank.level);
  if (calibrated.rank.packed && level < costs_.entropy.size() && costs_.entropy[level].bytes > 0) {
    bytes *= costs_.packed[level].bytes / costs_.entropy[level].bytes;
  }
  return bytes / rate + *work;
}

// The first of `ways` where nothing can be compared: it is what shows what a comparison needs to know.
CodecPolicy::Way CodecPolicy::keep_or_change(std::span<const Way> ways, Way kept, const CodecChoice& calibrated,
                                             double rate) const {
  const auto kept_seconds = seconds(kept, calibrated, rate);
  if (!seconds(ways.front(), calibrated, rate) || !kept_seconds) return ways.front();
  const Way best = std::ranges::min(ways, {}, [&](Way way) { return *seconds(way, calibrated, rate); });
  return *seconds(best, calibrated, rate) < (1 - kMargin) * *kept_seconds ? best : kept;
}

std::string CodecPolicy::comparison(std::span<const Way> ways, const CodecChoice& calibrated, double rate) const {
  if (rate == 0) return "the link is not measured yet";
  char text[64];
  std::snprintf(text, sizeof text, "at %.3g Gbit/s a token takes", 8 * rate / kBitsOfGigabit);
  std::string compared = text;
  for (const Way way : ways) {
    const auto needed = seconds(way, calibrated, rate);
    const std::string name(way == Way::kRaw ? "raw" : way == Way::kLossless ? "lossless" : to_string(calibrated.id));
    if (needed) std::snprintf(text, sizeof text, "%.4g us", 1e6 * *needed);
    compared += (way == ways.front() ? " " : ", ") + name + " " + (needed ? text : "a time not measured yet");
  }
  return compared;
}

}  // namespace scd
