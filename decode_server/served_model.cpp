#include "decode_server/served_model.h"

#include <utility>

#include "common/base/error.h"
#include "common/codec/registry.h"

namespace scd {
namespace {

const ArtifactDecoder* artifact_of(const ConsumerIdentity& identity) {
  return identity.artifact ? &*identity.artifact : nullptr;
}

void check_native_share(const CodecOptions& options, const LayerPlan& plan, int32_t layers) {
  const double share = plan.native_share(layers);
  if (share <= options.max_native_share) return;
  throw Error(ErrorCode::kFailedPrecondition,
              options.artifact.string() + ": it has this server run " + std::to_string(share) +
                  " of its layers over the prefix, more than codec.max_native_share " +
                  std::to_string(options.max_native_share) + "; calibrate with fewer --native layers");
}

ValidationContext with_artifact(ValidationContext context, const ArtifactDecoder* artifact, const CodecPolicy& codecs,
                                const CodecOptions& options) {
  if (artifact == nullptr) return context;
  const auto configured = codec_from_number(static_cast<int>(options.mode));
  if (configured && needs_artifact(*configured) && *configured != artifact->codec) {
    throw Error(ErrorCode::kFailedPrecondition, options.artifact.string() + " is an artifact of codec " +
                                                    std::string(to_string(artifact->codec)) + ", but codec.mode is " +
                                                    std::string(to_string(*configured)));
  }
  context.artifact_codec = artifact->codec;
  context.levels = codecs.levels();
  context.level = codecs.fixed_level();
  if (const LayerPlan* plan = artifact->calibrated_plan()) {
    check_native_share(options, *plan, context.model.layers);
    context.exact_layers = plan->exact_layers;
    context.predicts = plan->predicted;
  }
  return context;
}

}  // namespace

ServedModel::ServedModel(Args args)
    : identity(std::move(args.identity)),
      adapter(std::move(args.adapter)),
      codecs(args.codec, artifact_of(identity), std::move(args.costs)),
      validation(with_artifact(std::move(args.validation), artifact_of(identity), codecs, args.codec)),
      prefixes(args.prefixes) {}

}  // namespace scd
