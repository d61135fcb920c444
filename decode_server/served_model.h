// A model that requests can name: what was loaded at `model.directory`, alone or with an adapter beside it, and the
// decoder of what prefill servers send for it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/model/adapter.h"
#include "decode_server/codec_policy.h"
#include "decode_server/consumer_identity.h"
#include "decode_server/prefix_cache.h"
#include "decode_server/validation_context.h"

namespace scd {

// Shared (std::shared_ptr) by the list of models and the requests to it; whichever lets go last frees it and the pages
// that are kept for it.
struct ServedModel {
  struct Args {
    ConsumerIdentity identity;
    std::unique_ptr<const Adapter> adapter;
    CodecOptions codec;  // with the model's own artifact
    CoderCosts costs;
    ValidationContext validation;  // without what the artifact says
    PrefixCache& prefixes;
  };
  // Throws Error kFailedPrecondition where the artifact is not one that the configuration allows.
  explicit ServedModel(Args args);

  const std::string& name() const { return validation.model_name; }

  const ConsumerIdentity identity;
  const std::unique_ptr<const Adapter> adapter;  // null: the model as it was loaded
  CodecPolicy codecs;
  const ValidationContext validation;
  const PrefixSpace prefixes;
  // Their maps are large: one for all transfers of a codec from a producer. Of the receive stage's thread alone.
  std::map<std::string, std::shared_ptr<const Decoder>> decoders;
};

}  // namespace scd
