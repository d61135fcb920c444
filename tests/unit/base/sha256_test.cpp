#include "common/base/sha256.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

// FIPS 180-4 example.
TEST(Sha256, matches_the_published_vector) {
  EXPECT_EQ(to_hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, in_parts_equals_the_whole) { EXPECT_EQ(Sha256().update("ab").update("c").finish(), sha256("abc")); }

}  // namespace
}  // namespace scd
