#include "prefill_server/prefix_names.h"

#include <array>
#include <string_view>

#include "common/codec/payload.h"

namespace scd {
namespace {

void update_number(Sha256& hash, int64_t number) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(static_cast<uint64_t>(number) >> (8 * i));
  hash.update(bytes);
}

// Lengths go first, so that no two scopes spell the same bytes.
void update_text(Sha256& hash, std::string_view text) {
  update_number(hash, static_cast<int64_t>(text.size()));
  hash.update(text);
}

Sha256Digest seed_of(const CodeScope& scope) {
  Sha256 hash;
  hash.update("scd code cache 4");
  update_number(hash, kPayloadVersion);  // what others wrote is not found
  update_text(hash, scope.cache_salt);
  update_text(hash, scope.producer);
  update_text(hash, scope.computed);
  hash.update(std::as_bytes(std::span(scope.encoder_id)));
  // Not the form: a decoder reads both, and a stored code in the other one beats another prefill.
  for (const int64_t number : {int64_t{static_cast<uint8_t>(scope.codec.id)}, int64_t{scope.codec.rank.key},
                               int64_t{scope.codec.rank.value}, int64_t{scope.codec.rank.hidden},
                               int64_t{scope.codec.rank.level}, int64_t{scope.first_layer}, scope.skip_tokens}) {
    update_number(hash, number);
  }
  return hash.finish();
}

}  // namespace

PrefixNames::PrefixNames(const CodeScope& scope, std::span<const TokenId> tokens) {
  SCD_CHECK(tokens.size() % kHandoverMultiple == 0, "prefixes end at multiples of 16 tokens");
  Sha256Digest name = seed_of(scope);
  names_.reserve(tokens.size() / kHandoverMultiple);
  for (size_t first = 0; first < tokens.size(); first += kHandoverMultiple) {
    Sha256 hash;
    hash.update(std::as_bytes(std::span(name)));
    hash.update(std::as_bytes(tokens.subspan(first, kHandoverMultiple)));
    name = hash.finish();
    names_.push_back(name);
  }
}

const Sha256Digest& PrefixNames::of(int64_t tokens) const {
  SCD_CHECK(tokens > 0 && tokens % kHandoverMultiple == 0 && tokens <= this->tokens(), "a prefix of this prompt");
  return names_[static_cast<size_t>(tokens / kHandoverMultiple - 1)];
}

}  // namespace scd
