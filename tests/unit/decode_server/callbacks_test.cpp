// Calls let go of their channel before anybody hears that they are done: common/rpc/channel.h says why.
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>

#include "common/rpc/channel.h"
#include "decode_server/receive/health_checks.h"
#include "decode_server/receive/prefill_stream.h"
#include "tests/unit/decode_server/producer.h"

namespace scd {
namespace {

class CallbacksTest : public ::testing::Test {
 protected:
  LoopbackNetwork network_;
  std::promise<void> may_end_;
  testing::Producer producer_{{}, network_, [this](const v1::StartPrefill&, testing::Producer::Stream&) {
                                may_end_.get_future().wait();
                                return grpc::Status::OK;
                              }};
  const std::shared_ptr<grpc::Channel> channel_ = make_channel(producer_.address(), {});
};

TEST_F(CallbacksTest, APrefillStreamIsGoneWhenItsEndIsTold) {
  const auto stub = v1::PrefillService::NewStub(channel_);
  std::promise<long> holders;
  v1::PrefillCommand start;
  start.mutable_start();
  PrefillStream::Callbacks callbacks{.on_event = [](const v1::PrefillEvent&, ServingClock::time_point) {},
                                     .on_end = [&](const Result<Done>&) { holders.set_value(channel_.use_count()); }};
  PrefillStream::open(*stub, ServingClock::time_point::max(), std::move(start), std::move(callbacks)).reset();
  may_end_.set_value();
  EXPECT_EQ(holders.get_future().get(), 2) << "this test and its stub";
}

TEST_F(CallbacksTest, NothingIsLeftOfAHealthCheckWhenTheChecksAreOver) {
  for (int i = 0; i < 50; ++i) {
    std::promise<void> checked;
    {
      HealthChecks checks([&](PeerId, const Result<Done>&) {
        checked.set_value();
        std::this_thread::yield();
      });
      checks.begin(1, channel_, std::chrono::seconds(10));
      checked.get_future().wait();
    }
    EXPECT_EQ(channel_.use_count(), 1);
  }
}

TEST_F(CallbacksTest, AHealthChecksCallbackNeverHoldsTheLastOfAChannel) {
  auto channel = make_channel(producer_.address(), {});
  const std::weak_ptr<grpc::Channel> held = channel;
  std::promise<void> checked;
  {
    HealthChecks checks([&](PeerId, const Result<Done>&) { checked.set_value(); });
    checks.begin(1, channel, std::chrono::seconds(10));
    channel.reset();
    checked.get_future().wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(held.expired()) << "a callback had the last of it";
  }
  EXPECT_TRUE(held.expired());
}

}  // namespace
}  // namespace scd
