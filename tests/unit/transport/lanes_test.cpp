#include "common/transport/ucx/lanes.h"

#include <gtest/gtest.h>

#include "common/transport/ucx/socket_address.h"

namespace scd {
namespace {

TEST(Lanes, reads_the_transports_of_a_connection) {
  const Lanes lanes = parse_endpoint_lanes(
      "#\n# UCP endpoint \n#\n#               peer: <no debug data>\n"
      "#                 lane[0]: cm rdmacm\n"
      "#                 lane[1]:  3:sysv/memory.0 md[2]           -> md[2]/sysv/sysdev[255] am am_bw#0 keepalive\n"
      "#                 lane[2]:  5:cma/memory.0 md[4]            -> md[4]/cma/sysdev[255] rma_bw#0\n#\n");
  EXPECT_EQ(lanes.text, "sysv/memory cma/memory");
  EXPECT_FALSE(lanes.rdma);
  EXPECT_FALSE(lanes.tcp);
}

TEST(Lanes, names_each_device_once) {
  const Lanes lanes = parse_endpoint_lanes(
      "# lane[1]:  0:tcp/lo.0 md[0] -> md[0]/tcp/sysdev[255] rma_bw#0 am am_bw#0 wireup\n"
      "# lane[2]:  1:tcp/eth0.0 md[0] -> md[0]/tcp/sysdev[255] rma_bw#1\n"
      "# lane[3]:  1:tcp/eth0.1 md[0] -> md[0]/tcp/sysdev[255] rma_bw#2\n");
  EXPECT_EQ(lanes.text, "tcp/lo tcp/eth0");
  EXPECT_TRUE(lanes.tcp);
}

TEST(Lanes, calls_a_connection_rdma_only_when_nothing_else_carries_it) {
  EXPECT_TRUE(parse_endpoint_lanes("# lane[0]: 2:rc_mlx5/mlx5_0:1.0 md[1] -> md[1]/ib am rma_bw#0\n").rdma);
  EXPECT_EQ(parse_endpoint_lanes("# lane[0]: 2:rc_mlx5/mlx5_0:1.0 md[1] -> md[1]/ib am\n").text, "rc_mlx5/mlx5_0:1");
  EXPECT_FALSE(parse_endpoint_lanes("# lane[0]: 2:rc_mlx5/mlx5_0:1.0 md[1] -> md[1]/ib am\n"
                                    "# lane[1]: 0:tcp/lo.0 md[0] -> md[0]/tcp rma_bw#0\n")
                   .rdma);
  EXPECT_FALSE(parse_endpoint_lanes("").rdma);
  EXPECT_FALSE(parse_endpoint_lanes("").tcp);
}

TEST(Lanes, reads_what_this_machine_could_use) {
  const Lanes lanes = parse_context_resources(
      "#     component 1  :  tcp\n#            md 0  :  component 1  tcp \n#\n"
      "#      resource 0  :  md 0  dev 0  flags -- tcp/lo\n"
      "#      resource 1  :  md 0  dev 1  flags -- rc_verbs/mlx5_0:1\n");
  EXPECT_EQ(lanes.text, "tcp/lo rc_verbs/mlx5_0:1");
  EXPECT_TRUE(lanes.rdma);
}

TEST(SocketAddress, reads_numeric_addresses_and_asks_no_name_server) {
  EXPECT_EQ(parse_numeric_address("127.0.0.1:80").value().text(), "127.0.0.1:80");
  EXPECT_EQ(parse_numeric_address("[::1]:81").value().text(), "[::1]:81");
  for (const char* bad : {"", "127.0.0.1", "somewhere:80", "127.0.0.1:x", "::1", "127.0.0.1:"}) {
    ASSERT_FALSE(parse_numeric_address(bad).ok()) << bad;
    EXPECT_EQ(parse_numeric_address(bad).failure().code, ErrorCode::kInvalidArgument);
  }
}

TEST(SocketAddress, advertises_an_address_that_others_can_use) {
  EXPECT_EQ(advertised_address("", "127.0.0.1", 7), "127.0.0.1:7");
  EXPECT_EQ(advertised_address("10.1.2.3", "0.0.0.0", 7), "10.1.2.3:7");
  EXPECT_EQ(advertised_address("10.1.2.3:9", "0.0.0.0", 7), "10.1.2.3:9");
  EXPECT_FALSE(advertised_address("", "0.0.0.0", 7).starts_with("0.0.0.0"));
}

}  // namespace
}  // namespace scd
