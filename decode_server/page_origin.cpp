#include "decode_server/page_origin.h"

#include "common/base/check.h"

namespace scd {
namespace {

bool same_ranks(RankCaps a, RankCaps b) {
  a.level = b.level = 0;
  a.packed = b.packed = false;  // the form changes no number
  return a == b;
}

bool same_codes(const PageOrigin& a, const PageOrigin& b) {
  return a.codec->id == b.codec->id && a.encoder_id == b.encoder_id && same_ranks(a.codec->rank, b.codec->rank);
}

}  // namespace

PageOrigin origin_over(const PageOrigin& prefix, const PageOrigin& codes) {
  if (prefix.exact()) return codes;
  if (codes.exact()) return prefix;
  SCD_CHECK(same_codes(prefix, codes), "codes over a prefix of the same encoder and ranks");
  return prefix.codec->rank.level > codes.codec->rank.level ? prefix : codes;
}

bool good_enough(const PageOrigin& origin, const PageOrigin& wanted) {
  if (origin.exact()) return true;
  return !wanted.exact() && same_codes(origin, wanted) && origin.codec->rank.level <= wanted.codec->rank.level;
}

}  // namespace scd
