#include "decode_server/receive/endpoint_pool.h"

#include <gtest/gtest.h>

namespace scd {
namespace {

const Failure kDown{ErrorCode::kUnavailable, "down"};

PrefillOptions three_endpoints() {
  PrefillOptions options;
  options.endpoints = {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"};
  options.retry_after = std::chrono::hours(1);
  return options;
}

TEST(EndpointPool, spreads_requests_over_those_with_fewest_outstanding) {
  EndpointPool pool(three_endpoints(), {});
  std::set<size_t> chosen;
  for (int i = 0; i < 3; ++i) chosen.insert(pool.acquire({}).value());
  EXPECT_EQ(chosen.size(), 3u);
  pool.release(1);
  EXPECT_EQ(pool.acquire({}), 1u);
}

TEST(EndpointPool, does_not_choose_what_was_tried) {
  EndpointPool pool(three_endpoints(), {});
  EXPECT_EQ(pool.acquire({0, 2}), 1u);
  EXPECT_EQ(pool.acquire({0, 1, 2}), std::nullopt);
}

TEST(EndpointPool, avoids_one_that_failed_while_there_are_others) {
  EndpointPool pool(three_endpoints(), {});
  pool.failed(0, kDown);
  for (int i = 0; i < 6; ++i) EXPECT_NE(pool.acquire({}), 0u);
  EXPECT_EQ(pool.acquire({1, 2}), 0u);
  EXPECT_EQ(pool.reports()[0].reason, "down");
  EXPECT_FALSE(pool.reports()[0].healthy);
}

TEST(EndpointPool, forgets_what_a_failed_one_said_of_itself) {
  EndpointPool pool(three_endpoints(), {});
  v1::GetProducerInfoResponse info;
  info.set_model("tiny");
  pool.set_info(0, info);
  ASSERT_NE(pool.info(0), nullptr);
  EXPECT_EQ(pool.info(0)->model(), "tiny");
  pool.failed(0, kDown);
  EXPECT_EQ(pool.info(0), nullptr);
}

}  // namespace
}  // namespace scd
