// Which codes a request gets where neither it nor the configuration says so: codec, level and form. Time to the first
// token decides, by what transfers and coders have been measured to reach:
//
//   seconds a token = bytes / bandwidth of the link + work of producer and consumer (encoding; decoding, native layers)
//
// A choice once made is kept until another is better by a margin. Raw and lossless keep the producer's bits: they stand
// in for codes only where both servers run the same model, and are the only choice where no bit may change.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "common/codec/artifact.h"
#include "common/codec/codec.h"
#include "common/config/parts.h"
#include "decode_server/coder_costs.h"
#include "decode_server/completion.h"
#include "decode_server/level_policy.h"
#include "decode_server/measured_rate.h"
#include "decode_server/page_origin.h"

namespace scd {

// A request and the prefill server it goes to.
struct CodecQuestion {
  TransferMode mode = TransferMode::kCodec;
  CodecChoice codec;                     // with kCodec; with kAuto that of the artifact, raw without one
  bool level_open = false;               // of `codec`
  bool form_open = false;                // of `codec`
  bool same_model = false;               // producer and consumer are one
  bool artifact_fits = true;             // it was made for this producer
  int64_t tokens = 0;                    // to hand over
  double declared_bytes_per_second = 0;  // the most the producer sends; 0: not said
  std::string endpoint{};                // the producer: links differ
};

struct CodecDecision {
  std::optional<CodecChoice> codec;  // nothing: no codec keeps the bits, the consumer has to compute the prompt
  std::string reason{};              // empty where the policy had nothing to choose
  bool changed = false;              // like requests before it got something else, or there were none
  // Encoding, wire and rebuilding of a token; nothing before link and coders have been measured.
  std::optional<double> predicted_seconds_per_token{};
};

// What one transfer came to.
struct TransferCost {
  CodecChoice codec;
  std::string endpoint{};
  int64_t tokens = 0;        // that were sent
  int64_t fresh_tokens = 0;  // of them, those that were encoded for this request
  int64_t wire_bytes = 0;
  std::chrono::nanoseconds wire{0};     // the link was busy
  std::chrono::nanoseconds encode{0};   // of fresh tokens
  std::chrono::nanoseconds rebuild{0};  // codes becoming keys and values, native layers included

  std::chrono::nanoseconds sum() const { return wire + encode + rebuild; }
};

// Thread-safe.
class CodecPolicy {
 public:
  // artifact: null without one. Throws Error as LevelPolicy.
  CodecPolicy(const CodecOptions& codec, const ArtifactDecoder* artifact, CoderCosts costs);

  int32_t levels() const { return levels_ ? levels_->levels() : 1; }
  int32_t fixed_level() const { return levels_ ? levels_->fixed() : 0; }

  CodecDecision choose(const CodecQuestion& question);
  void observe(const TransferCost& cost);
  // What the last kAuto request got; before one, what the first would get of a prefill server with the same model.
  CodecDecision present() const;
  // The coarsest of what the request may get for so many tokens, as far as it is known before hands are shaken: which
  // prefill server will be asked may decide about other codecs than the artifact's.
  PageOrigin coarsest(const CompletionRequest& request, int64_t tokens) const;

 private:
  enum class Way : uint8_t { kRaw, kLossless, kCalibrated };
  // A question's candidates share what was chosen last.
  struct Kept {
    Way way = Way::kRaw;
    bool told = false;
  };
  // A prefill server and the link to it.
  struct Peer {
    MeasuredRate link;                        // bytes
    Kept exact{.way = Way::kRaw};             // of raw and lossless
    Kept automatic{.way = Way::kCalibrated};  // of these and the artifact's codec
    bool packed = false;
  };
  struct Work {
    MeasuredRate encode, rebuild;  // tokens
    std::optional<double> seconds() const;
  };

  Peer& peer(const std::string& endpoint);
  CodecDecision decide(const CodecQuestion& question, Peer& peer, double link);
  double rate(const MeasuredRate& link, double declared) const;
  bool packed_pays(bool& was_packed, int32_t level, double rate) const;
  std::optional<double> predict(const CodecChoice& codec, double rate) const;
  std::optional<double> seconds(Way way, const CodecChoice& calibrated, double rate) const;
  std::string comparison(std::span<const Way> ways, const CodecChoice& calibrated, double rate) const;
  Way keep_or_change(std::span<const Way> ways, Way kept, const CodecChoice& calibrated, double rate) const;

  const std::optional<CodecId> artifact_codec_;
  const Sha256Digest encoder_id_;  // of the artifact
  const std::optional<LevelPolicy> levels_;
  const CoderCosts costs_;
  mutable std::mutex mutex_;  // guards all below
  MeasuredRate link_;         // bytes, of all prefill servers: one not measured yet is taken to be like the others
  std::map<std::string, Peer> peers_;  // by endpoint
  Work plain_;                         // of raw transfers
  Work calibrated_;
  std::optional<CodecDecision> last_auto_;
};

}  // namespace scd
