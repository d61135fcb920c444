#include "common/metrics/exposition.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/error.h"

namespace scd {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr double kBounds[] = {0.5, 1};

void fill(MetricsRegistry& registry) {
  registry.counters({"scd_requests_total", "Requests that ended.", {"outcome"}}).of({"a \"b\""})->add(3);
  Histogram& histogram = registry.histogram({"scd_wait_seconds", "Waiting."}, kBounds);
  histogram.observe(0.25);
  histogram.observe(4);
  registry.read(MetricKind::kGauge, {"scd_held", "Held."}, [] { return 7.0; });
}

TEST(PrometheusText, has_help_type_escaped_labels_and_cumulative_buckets) {
  MetricsRegistry registry;
  fill(registry);
  EXPECT_EQ(prometheus_text(registry), R"(# HELP scd_requests_total Requests that ended.
# TYPE scd_requests_total counter
scd_requests_total{outcome="a \"b\""} 3
# HELP scd_wait_seconds Waiting.
# TYPE scd_wait_seconds histogram
scd_wait_seconds_count 2
scd_wait_seconds_sum 4.25
scd_wait_seconds_bucket{le="0.5"} 1
scd_wait_seconds_bucket{le="1"} 1
scd_wait_seconds_bucket{le="+Inf"} 2
# HELP scd_held Held.
# TYPE scd_held gauge
scd_held 7
)");
}

std::string get(const std::string& address, const std::string& path) {
  const int port = std::stoi(address.substr(address.rfind(':') + 1));
  const int connection = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(connection, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  const std::string request = "GET " + path + " HTTP/1.0\r\nHost: localhost\r\n\r\n";
  EXPECT_EQ(write(connection, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t got = 0; (got = read(connection, buffer, sizeof buffer)) > 0;) {
    answer.append(buffer, static_cast<size_t>(got));
  }
  close(connection);
  return answer;
}

TEST(MetricsEndpoint, serves_the_registry_at_a_port_the_kernel_chose) {
  MetricsRegistry registry;
  fill(registry);
  const MetricsEndpoint endpoint({.listen = "127.0.0.1:0"}, registry);
  EXPECT_THAT(endpoint.address(), StartsWith("127.0.0.1:"));
  EXPECT_NE(endpoint.address(), "127.0.0.1:0");
  EXPECT_THAT(get(endpoint.address(), "/metrics"), AllOf(HasSubstr("200 OK"), HasSubstr(prometheus_text(registry))));
  EXPECT_THAT(get(endpoint.address(), "/other"), HasSubstr("404"));
}

TEST(MetricsEndpoint, does_not_listen_unless_told_to) {
  MetricsRegistry registry;
  EXPECT_EQ(MetricsEndpoint({}, registry).address(), "");
}

TEST(MetricsEndpoint, an_address_that_is_none_or_taken_is_named) {
  MetricsRegistry registry;
  const auto refusal = [&](const std::string& listen) -> Failure {
    try {
      const MetricsEndpoint endpoint({.listen = listen}, registry);
    } catch (const Error& error) {
      return error.failure();
    }
    return {};
  };
  const Failure no_port = refusal("localhost");
  EXPECT_EQ(no_port.code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(no_port.message, AllOf(HasSubstr("metrics.listen"), HasSubstr("'localhost'")));
  const MetricsEndpoint first({.listen = "127.0.0.1:0"}, registry);
  const Failure taken = refusal(first.address());
  EXPECT_EQ(taken.code, ErrorCode::kUnavailable);
  EXPECT_THAT(taken.message, AllOf(HasSubstr("metrics.listen"), HasSubstr(first.address())));
  EXPECT_EQ(refusal("192.0.2.1:0").code, ErrorCode::kUnavailable) << "an address no machine has";
}

}  // namespace
}  // namespace scd
