// How keys and values in the cache came to be, and for whom they are good enough.
#pragma once

#include <optional>

#include "common/base/sha256.h"
#include "common/codec/codec.h"

namespace scd {

// What is computed over keys and values has their origin, or a coarser one.
struct PageOrigin {
  std::optional<CodecChoice> codec{};  // nothing: exact, the bits that this server's own model computes
  Sha256Digest encoder_id{};           // with a codec

  bool exact() const { return !codec.has_value(); }
  bool operator==(const PageOrigin&) const = default;
};

// Of what is computed from codes of origin `codes` over a prefix of origin `prefix`: the coarser one. Both lossy: of
// one encoder and of equal ranks.
PageOrigin origin_over(const PageOrigin& prefix, const PageOrigin& codes);
// Good enough for whoever could have been given `wanted`: exact, or of its encoder and ranks and no coarser level.
bool good_enough(const PageOrigin& origin, const PageOrigin& wanted);

}  // namespace scd
