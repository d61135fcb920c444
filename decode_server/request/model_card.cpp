#include "decode_server/request/model_card.h"

namespace scd {

v1::ModelCard card_of(const ServedModel& model) {
  const ConsumerIdentity& identity = model.identity;
  v1::ModelCard card;
  card.set_name(model.name());
  card.set_context_length(static_cast<uint32_t>(model.validation.model.max_positions));
  card.set_vocabulary_size(static_cast<uint32_t>(model.validation.model.vocab));
  card.mutable_fingerprint()->set_weights(identity.fingerprint.weights);
  card.mutable_fingerprint()->set_tokenizer(identity.fingerprint.tokenizer);
  card.mutable_fingerprint()->set_rope(identity.fingerprint.rope);
  card.set_adapter_bytes(model.adapter == nullptr ? 0 : model.adapter->bytes());
  if (!identity.artifact) return card;
  const Sha256Digest& encoder = identity.artifact->encoder_id;
  card.mutable_codec()->set_codec(static_cast<v1::Codec>(identity.artifact->codec));
  card.mutable_codec()->set_encoder_id(encoder.data(), encoder.size());
  card.set_levels(static_cast<uint32_t>(model.codecs.levels()));
  return card;
}

}  // namespace scd
