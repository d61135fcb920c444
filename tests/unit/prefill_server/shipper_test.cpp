#include "prefill_server/ship/shipper.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

// Keeps what is sent until the test says that it left.
class HeldTransport : public Transport {
 public:
  std::string address() const override { return "here:1"; }
  std::string description() const override { return "held"; }
  Result<Done> send(SendJob job) override {
    sent.push_back(std::move(job));
    return Done{};
  }
  void abandon(const std::string& peer, LeaseKey key) override { abandoned.emplace_back(peer, key); }
  Result<Lease> open_lease(LeaseRequest) override { return Failure{ErrorCode::kUnimplemented, ""}; }
  size_t slot_bytes() const override { return 0; }
  std::vector<PeerReport> peers() const override { return {}; }
  TransportCounters counters() const override { return {}; }

  void leave(size_t index) { sent[index].on_sent(SendReport{}); }

  std::vector<std::pair<std::string, LeaseKey>> abandoned;
  std::vector<SendJob> sent;  // ends first: jobs that end with it abandon
};

struct Told : PrefillListener {
  void accepted(const HandoverPlan&, const Sha256Digest&) override {}
  void chunk_sent(const TokenRange& chunk) override { chunks.push_back(chunk); }
  void finished(const SpanLog&, uint64_t bytes, size_t, const std::string&) override { finished_bytes = bytes; }
  void failed(const Failure& failure) override { failures.push_back(failure); }

  std::vector<TokenRange> chunks;
  std::optional<uint64_t> finished_bytes;
  std::vector<Failure> failures;
};

class NoEncoder : public Encoder {
 public:
  const Sha256Digest& id() const override { return id_; }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(2, exact_layers); }
  void encode(const LayerChunk&, const RankCaps&, ByteBuffer&) const override {}

 private:
  Sha256Digest id_{9, 8, 7};
};

class ShipperTest : public ::testing::Test {
 protected:
  std::shared_ptr<PrefillJob> make_job(uint32_t credit) {
    PrefillRequest request;
    request.id = 5;
    request.generation = 2;
    request.peer = "there:1";
    request.credit_messages = credit;
    request.handover_tokens = 32;
    request.tokens.resize(32);
    HandoverPlan plan{
        .handover_tokens = 32, .cached_tokens = 0, .chunks = {{0, 16}, {16, 16}}, .layers = layer_by_layer(2, 0)};
    PrefixNames names({}, request.tokens);
    return std::make_shared<PrefillJob>(
        PrefillJob::Args{std::move(request), std::move(plan), std::move(names), encoder_, told_,
                         [this](PrefillJob& job, const std::optional<Failure>& failure) {
                           if (failure) shipper_.abandon(job);
                         }});
  }
  std::vector<CodeUnit> units() {
    std::vector<CodeUnit> all;
    for (const TokenRange& tokens : {TokenRange{0, 16}, TokenRange{16, 16}}) {
      for (int32_t layer = 0; layer < 2; ++layer) {
        all.push_back({layer, 1, tokens, 5, 77, SharedBytes::from(ByteBuffer(10))});
      }
    }
    return all;
  }

  HeldTransport transport_;
  NoEncoder encoder_;
  std::shared_ptr<Told> told_ = std::make_shared<Told>();  // shared with the job
  int rooms_ = 0;
  MetricsRegistry registry_;
  PrefillMetrics metrics_{registry_};
  Shipper shipper_{{.transport = transport_,
                    .metrics = metrics_,
                    .max_credit_messages = 3,
                    .max_unsent_bytes = 20,
                    .on_room = [this] { ++rooms_; }}};
};

TEST_F(ShipperTest, SendsAsFarAsCreditGoesAndOnEveryAcknowledgement) {
  const auto job = make_job(2);
  shipper_.add(job, units());
  EXPECT_TRUE(transport_.sent.empty());
  shipper_.open(job);
  ASSERT_EQ(transport_.sent.size(), 2U);
  EXPECT_EQ(transport_.sent[1].header.sequence, 1U);
  EXPECT_EQ(transport_.sent[1].header.first_layer, 1U);
  EXPECT_EQ(transport_.sent[1].header.payload_crc, 77U);
  EXPECT_EQ(transport_.sent[1].header.encoder_id, (EncoderId{9, 8, 7}));
  EXPECT_TRUE(shipper_.acknowledge(job, 1).ok());
  EXPECT_EQ(transport_.sent.size(), 3U);
  shipper_.grant(job, 1);
  ASSERT_EQ(transport_.sent.size(), 4U);
  EXPECT_EQ(transport_.sent[2].header.flags, 0);
  EXPECT_EQ(transport_.sent[3].header.flags, kFlagLastOfRequest);
}

TEST_F(ShipperTest, NeverHasMoreUnacknowledgedThanItsOwnLimit) {
  const auto job = make_job(1000);
  shipper_.open(job);
  shipper_.add(job, units());
  EXPECT_EQ(transport_.sent.size(), 3U);
  shipper_.grant(job, 1000);
  EXPECT_EQ(transport_.sent.size(), 3U);
  EXPECT_TRUE(shipper_.acknowledge(job, 0).ok());
  EXPECT_EQ(transport_.sent.size(), 4U);
}

TEST_F(ShipperTest, AcknowledgingWhatWasNotSentOrTwiceIsRefused) {
  const auto job = make_job(2);
  shipper_.open(job);
  shipper_.add(job, units());
  EXPECT_EQ(shipper_.acknowledge(job, 2).failure().code, ErrorCode::kInvalidArgument);
  EXPECT_TRUE(shipper_.acknowledge(job, 0).ok());
  EXPECT_FALSE(shipper_.acknowledge(job, 0).ok());
}

TEST_F(ShipperTest, TellsWhenChunksAndTheWholeHaveLeft) {
  const auto job = make_job(3);
  shipper_.open(job);
  shipper_.add(job, units());
  EXPECT_TRUE(shipper_.acknowledge(job, 0).ok());
  transport_.leave(1);
  EXPECT_EQ(rooms_, 0);
  transport_.leave(0);
  EXPECT_EQ(rooms_, 1) << "40 bytes unsent have become 20";
  ASSERT_EQ(told_->chunks.size(), 1U);
  EXPECT_EQ(told_->chunks[0], (TokenRange{0, 16}));
  EXPECT_FALSE(told_->finished_bytes.has_value());
  transport_.leave(2);
  transport_.leave(3);
  EXPECT_EQ(told_->finished_bytes, 40U);
  EXPECT_TRUE(told_->failures.empty());
}

TEST_F(ShipperTest, AFailedSendEndsTheJobOnceAndAbandonsTheRest) {
  const auto job = make_job(2);
  shipper_.open(job);
  shipper_.add(job, units());
  transport_.sent[0].on_sent(Failure{ErrorCode::kUnavailable, "gone"});
  transport_.sent[1].on_sent(Failure{ErrorCode::kUnavailable, "gone"});
  ASSERT_EQ(told_->failures.size(), 1U);
  EXPECT_EQ(told_->failures[0].message, "sending codes to the decode server at there:1: gone");
  ASSERT_EQ(transport_.abandoned.size(), 1U);
  EXPECT_EQ(transport_.abandoned[0].second, (LeaseKey{5, 2}));
  shipper_.grant(job, 10);
  EXPECT_EQ(transport_.sent.size(), 2U) << "nothing leaves after the end";
}

}  // namespace
}  // namespace scd
