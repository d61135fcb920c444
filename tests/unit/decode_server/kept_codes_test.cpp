#include "decode_server/rebuild/kept_codes.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/base/crc32c.h"

namespace scd {
namespace {

constexpr int64_t kChunk = 32, kHandover = 80;  // two chunks and half of one

class KeptCodesTest : public ::testing::Test {
 protected:
  KeptCodesTest() : staging_(size_t{1} << 18, 8) {
    lease_ = staging_
                 .open_lease({.key = {1, 1},
                              .token = {},
                              .slots = 8,
                              .on_message = [this](ReceivedMessage message) { arrived_ = std::move(message); },
                              .on_failure = [](const Failure&) {}})
                 .value_or_throw();
    plan_.first_token = 16;
    plan_.handover_tokens = kHandover;
    plan_.chunk_tokens = kChunk;
    plan_.layers = layer_by_layer(3, 1);
  }

  ReceivedMessage receive(int32_t layer, int64_t first, uint8_t fill = 7, size_t size = 100) {
    const std::vector<std::byte> bytes(size, std::byte{fill});
    MessageHeader header;
    header.request_id = header.generation = 1;
    header.first_layer = static_cast<uint16_t>(layer);
    header.layer_count = 1;
    header.first_token = static_cast<uint32_t>(first);
    header.token_count = 16;
    header.sequence = sequence_++;
    header.payload_bytes = bytes.size();
    header.payload_crc = crc32c(bytes);
    Landing landing;
    EXPECT_EQ(staging_.admit(serialize(header), bytes.size(), landing), RejectReason::kNone);
    std::memcpy(landing.target().data(), bytes.data(), bytes.size());
    staging_.deliver(std::move(landing));
    return std::move(*arrived_);
  }
  void receive_all(KeptCodes& codes) {
    codes.begin(plan_);
    for (const int32_t layer : {1, 2}) {
      for (const int64_t first : {16, 32, 64}) codes.add(receive(layer, first));
    }
  }

  StagingPool staging_;
  std::optional<ReceivedMessage> arrived_;
  Lease lease_;
  TransferPlan plan_;
  KeptCodesBudget budget_{.limit_bytes = 10000};
  uint32_t sequence_ = 0;
};

TEST_F(KeptCodesTest, gives_back_what_came_and_holds_no_slot) {
  KeptCodes codes(budget_);
  EXPECT_FALSE(codes.complete(0));
  receive_all(codes);
  EXPECT_EQ(staging_.counters().slots_in_use, 0u);
  EXPECT_EQ(budget_.used_bytes, 600u);
  ASSERT_TRUE(codes.complete(0));
  EXPECT_EQ(codes.plan(0).first_token, 16);
  auto messages = codes.take(0);
  ASSERT_EQ(messages.size(), 6u);
  EXPECT_EQ(budget_.used_bytes, 0u);
  EXPECT_FALSE(codes.complete(0));  // until they are back
  for (ReceivedMessage& message : messages) {
    EXPECT_TRUE(message.verify_payload().ok());
    EXPECT_EQ(message.payload().front(), std::byte{7});
    codes.add(std::move(message));
  }
  EXPECT_TRUE(codes.complete(0));
}

TEST_F(KeptCodesTest, whoever_holds_more_gets_fewer_and_those_left_stay) {
  KeptCodes codes(budget_);
  receive_all(codes);
  ASSERT_TRUE(codes.complete(48));
  EXPECT_EQ(codes.plan(48).first_token, 32);  // the chunk that is held in part
  EXPECT_EQ(codes.plan(48).held_tokens, 48);
  EXPECT_EQ(codes.take(48).size(), 4u);
  EXPECT_EQ(budget_.used_bytes, 200u);
  EXPECT_FALSE(codes.complete(kHandover));  // nothing is missing
}

TEST_F(KeptCodesTest, what_was_not_sent_because_it_was_held_is_missed) {
  plan_.held_tokens = 40;
  plan_.first_token = 32;
  KeptCodes codes(budget_);
  codes.begin(plan_);
  for (const int32_t layer : {1, 2}) {
    for (const int64_t first : {32, 64}) codes.add(receive(layer, first));
  }
  EXPECT_TRUE(codes.complete(40));
  EXPECT_FALSE(codes.complete(16));
}

TEST_F(KeptCodesTest, keys_and_values_as_they_are_are_not_copied) {
  budget_.limit_bytes = size_t{1} << 20;
  KeptCodes codes(budget_);
  receive_all(codes);
  codes.add(receive(1, 32, 7, 200'000));
  EXPECT_EQ(budget_.used_bytes, 0u);
  EXPECT_FALSE(codes.complete(0));
}

TEST_F(KeptCodesTest, some_codes_are_worth_nothing) {
  budget_.limit_bytes = 550;
  KeptCodes codes(budget_);
  receive_all(codes);
  EXPECT_FALSE(codes.complete(0));
  EXPECT_EQ(budget_.used_bytes, 0u);
  budget_.limit_bytes = 10000;
  receive_all(codes);
  EXPECT_TRUE(codes.complete(0));
  codes.begin(plan_);  // another prefill server
  EXPECT_FALSE(codes.complete(0));
  EXPECT_EQ(budget_.used_bytes, 0u);
}

}  // namespace
}  // namespace scd
