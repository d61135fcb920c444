#include "decode_server/receive/discovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace scd {
namespace {

using ::testing::HasSubstr;

TEST(Discovery, knows_names_from_numbers) {
  EXPECT_TRUE(is_name("localhost:1"));
  EXPECT_TRUE(is_name("prefill.scd.svc.cluster.local:50052"));
  EXPECT_TRUE(is_name("1.2.3:50052"));
  EXPECT_FALSE(is_name("127.0.0.1:1"));
  EXPECT_FALSE(is_name("[::1]:1"));
  EXPECT_FALSE(is_name("[fe80::1%eth0]:1"));
  EXPECT_EQ(host_of("[::1]:50052"), "::1");
  EXPECT_EQ(host_of("prefill:50052"), "prefill");
}

TEST(Discovery, looks_up_addresses_once_each_with_the_port) {
  const auto found = look_up("localhost:50052");
  ASSERT_TRUE(found.ok()) << found.failure().message;
  EXPECT_EQ(found.value(), std::vector<std::string>{"127.0.0.1:50052"});
  EXPECT_EQ(look_up("127.0.0.7:1").value(), std::vector<std::string>{"127.0.0.7:1"});
}

TEST(Discovery, says_which_name_has_no_address) {
  const auto found = look_up("no-such-host.invalid:50052");
  ASSERT_FALSE(found.ok());
  EXPECT_EQ(found.failure().code, ErrorCode::kUnavailable);
  EXPECT_THAT(found.failure().message, HasSubstr("no-such-host.invalid:50052"));
}

}  // namespace
}  // namespace scd
