// How one request's prompt gets into the cache, as pieces of work the compute thread chooses among.
#pragma once

#include <cstdint>
#include <span>

#include "common/base/error.h"

namespace scd {

// By rising urgency.
enum class PromptStep : uint8_t {
  kWait,          // nothing can be done until something arrives
  kLocalPrefill,  // a layer of a chunk of a prompt that is computed here
  kRebuild,       // sinks, layer 0, or one message of codes
  kSuffixLayer,   // a layer of the last tokens over the rebuilt prefix
  kFirstToken,    // the prompt is in the cache: only the logits are left
};

class PromptWork {
 public:
  virtual ~PromptWork() = default;
  virtual PromptStep next() const = 0;
  // Does what next() said; not for kWait and kFirstToken.
  virtual Result<Done> run() = 0;
  // At kFirstToken: logits [vocab] of the prompt's last token, valid until the next call.
  virtual std::span<const float> logits() = 0;
};

}  // namespace scd
