#include "common/config/parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/error.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

std::string refusal(const TransportOptions& transport) {
  try {
    check_for_daemon(transport);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(CheckForDaemon, TakesTheDefaultsAndNumericAddresses) {
  TransportOptions transport;
  EXPECT_EQ(refusal(transport), "accepted");
  transport.listen_host = "::1";
  transport.advertise = "[::1]:7000";
  EXPECT_EQ(refusal(transport), "accepted");
}

TEST(CheckForDaemon, RefusesATransportThatCannotLeaveTheProcess) {
  TransportOptions transport;
  transport.kind = TransportKind::kLoopback;
  EXPECT_THAT(refusal(transport), HasSubstr("transport.kind"));
}

TEST(CheckForDaemon, RefusesAddressesThatCannotBeResolvedByTheirKey) {
  TransportOptions transport;
  transport.listen_host = "256.0.0.1";
  EXPECT_THAT(refusal(transport), HasSubstr("transport.listen_host: address 256.0.0.1:0: "));
  transport.listen_host = "";
  EXPECT_THAT(refusal(transport), HasSubstr("transport.listen_host"));
  transport.listen_host = "127.0.0.1";
  transport.advertise = "no.such.host.invalid:7000";
  EXPECT_THAT(refusal(transport), HasSubstr("transport.advertise: address no.such.host.invalid:7000: "));
}

}  // namespace
}  // namespace scd
