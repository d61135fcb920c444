#include "decode_server/completion.h"

#include "common/codec/registry.h"

namespace scd {

bool CompletionRequest::needs_one_model() const {
  return mode == TransferMode::kExact || (mode == TransferMode::kAuto && !needs_artifact(codec.id));
}

}  // namespace scd
