// What codecs that are ready do on text: KL of the scored tokens, which the consumer runs itself, and bytes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/codec/artifact.h"
#include "common/codec/codec_model.h"
#include "tools/scd/cache_experiment.h"
#include "tools/scd/scored_text.h"

namespace scd {

struct CodecUnderCheck {
  const Encoder& encoder;
  const Decoder& decoder;
  RankCaps caps{};
};

struct CheckedCodec {
  CodecPrediction prediction;
  double rebuild_us = 0;  // of the consumer, a token: decoding and native layers
};

// BF16 keys and values of the layers that codecs send, a token.
double raw_bytes_per_token(const CodecModel& consumer, bool exact_layer0);

// One a codec, in their order, all on the same windows; bytes are of what is handed over, which windows about one
// context share. Shows its progress as `purpose`. Throws Error kInvalidArgument when every window is too short to hand
// over.
std::vector<CheckedCodec> check_codecs(const Model& producer, const Model& consumer, const ScoredText& text,
                                       const CacheExperimentOptions& options, std::span<const CodecUnderCheck> codecs,
                                       const std::string& purpose);

}  // namespace scd
