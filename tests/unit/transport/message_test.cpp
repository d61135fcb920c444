#include "common/transport/message.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/base/crc32c.h"

namespace scd {
namespace {

constexpr uint64_t kLimit = 1 << 20;

MessageHeader sample() {
  MessageHeader header;
  header.flags = kFlagLastOfRequest;
  header.request_id = 0x1122334455667788;
  header.generation = 0x99AABBCC;
  header.codec_id = 2;
  header.level = 3;
  header.dtype = 1;
  for (uint8_t i = 0; i < 16; ++i) header.token[i] = static_cast<uint8_t>(0xA0 + i);
  for (uint8_t i = 0; i < 8; ++i) header.encoder_id[i] = static_cast<uint8_t>(0xE0 + i);
  header.first_layer = 0x0405;
  header.layer_count = 0x0607;
  header.sequence = 0x08090A0B;
  header.first_token = 0x0C0D0E0F;
  header.token_count = 0x10111213;
  header.payload_bytes = 0x000000000001F0F1;
  header.payload_crc = 0xDEADBEEF;
  return header;
}

// The bytes of docs/wire_format.md, written out by hand; the last four are the CRC-32C of the rest.
const std::vector<uint8_t> kGolden{
    'S',  'C',  'D',  'M',  0x01, 0x00, 0x01, 0x00,  // magic, version, flags
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // request id
    0xCC, 0xBB, 0xAA, 0x99, 0x02, 0x03, 0x01, 0x00,  // generation, codec, level, dtype, zero
    0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7,  // token
    0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF,  //
    0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7,  // encoder id
    0x05, 0x04, 0x07, 0x06, 0x0B, 0x0A, 0x09, 0x08,  // first layer, layer count, sequence
    0x0F, 0x0E, 0x0D, 0x0C, 0x13, 0x12, 0x11, 0x10,  // first token, token count
    0xF1, 0xF0, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,  // payload bytes
    0xEF, 0xBE, 0xAD, 0xDE,                          // payload CRC
};

HeaderBytes with_crc(HeaderBytes bytes) {
  const uint32_t crc = crc32c(std::span(bytes).first(76));
  std::memcpy(bytes.data() + 76, &crc, sizeof crc);
  return bytes;
}

RejectReason reason_for(std::span<const std::byte> bytes) {
  MessageHeader header;
  return read_header(bytes, kLimit, header);
}

TEST(MessageHeader, has_the_documented_bytes) {
  const HeaderBytes bytes = serialize(sample());
  ASSERT_EQ(bytes.size(), 80U);
  ASSERT_EQ(kGolden.size(), 76U);
  for (size_t i = 0; i < kGolden.size(); ++i) EXPECT_EQ(static_cast<uint8_t>(bytes[i]), kGolden[i]) << "offset " << i;
  EXPECT_EQ(bytes, with_crc(bytes));
}

TEST(MessageHeader, survives_the_round_trip) {
  const auto parsed = parse(serialize(sample()), kLimit);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed.value(), sample());
}

TEST(MessageHeader, refuses_any_single_flipped_bit) {
  const HeaderBytes good = serialize(sample());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    HeaderBytes bad = good;
    bad[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_NE(reason_for(bad), RejectReason::kNone) << "bit " << bit;
  }
}

TEST(MessageHeader, names_what_is_wrong) {
  const HeaderBytes good = serialize(sample());
  EXPECT_EQ(reason_for({}), RejectReason::kTruncatedHeader);
  EXPECT_EQ(reason_for(std::span(good).first(79)), RejectReason::kTruncatedHeader);
  std::vector<std::byte> longer(good.begin(), good.end());
  longer.push_back(std::byte{0});
  EXPECT_EQ(reason_for(longer), RejectReason::kTruncatedHeader);

  HeaderBytes magic = good;
  magic[0] = std::byte{'X'};
  EXPECT_EQ(reason_for(with_crc(magic)), RejectReason::kBadMagic);
  HeaderBytes version = good;
  version[4] = std::byte{2};
  EXPECT_EQ(reason_for(with_crc(version)), RejectReason::kUnknownVersion);
  HeaderBytes flags = good;
  flags[7] = std::byte{0x80};
  EXPECT_EQ(reason_for(with_crc(flags)), RejectReason::kUnknownFlags);
  HeaderBytes reserved = good;
  reserved[23] = std::byte{1};
  EXPECT_EQ(reason_for(with_crc(reserved)), RejectReason::kUnknownFlags);
  HeaderBytes crc = good;
  crc[76] ^= std::byte{1};
  EXPECT_EQ(reason_for(crc), RejectReason::kHeaderCrc);
  EXPECT_EQ(parse(crc, kLimit).failure().code, ErrorCode::kDataLoss);
}

TEST(MessageHeader, bounds_the_payload) {
  MessageHeader header = sample();
  header.payload_bytes = kLimit;
  EXPECT_TRUE(parse(serialize(header), kLimit).ok());
  header.payload_bytes = kLimit + 1;
  const auto refused = parse(serialize(header), kLimit);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.failure().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.failure().message.find("oversized_payload"), std::string::npos);
}

}  // namespace
}  // namespace scd
