#include "common/base/crc32c.h"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace scd {
namespace {

uint32_t crc_of(std::string_view text) { return crc32c(std::as_bytes(std::span(text.data(), text.size()))); }

TEST(Crc32c, matches_the_check_value_of_the_castagnoli_polynomial) { EXPECT_EQ(crc_of("123456789"), 0xE3069283u); }

// RFC 3720 appendix B.4.
TEST(Crc32c, matches_the_vectors_of_rfc_3720) {
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xFF})), 0x62A8AB43u);
}

TEST(Crc32c, of_a_long_buffer_equals_the_crc_of_its_parts_chained) {
  std::vector<std::byte> bytes(10'007);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 131 + (i >> 7));
  const uint32_t whole = crc32c(bytes);
  for (size_t cut : {1ul, 8ul, 63ul, 3072ul, 3073ul, 9'999ul}) {
    const std::span<const std::byte> all(bytes);
    EXPECT_EQ(crc32c(all.subspan(cut), crc32c(all.first(cut))), whole) << cut;
  }
}

TEST(Crc32c, sees_a_single_flipped_bit_anywhere) {
  std::vector<std::byte> bytes(5'000, std::byte{7});
  const uint32_t good = crc32c(bytes);
  for (size_t i = 0; i < bytes.size(); i += 97) {
    bytes[i] ^= std::byte{1};
    EXPECT_NE(crc32c(bytes), good) << i;
    bytes[i] ^= std::byte{1};
  }
}

}  // namespace
}  // namespace scd
