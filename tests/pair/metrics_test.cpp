// That the servers expose what docs/metrics.md lists, and that each number counts what it says.
#include <gmock/gmock.h>

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "common/metrics/registry.h"
#include "decode_server/metrics.h"
#include "decode_server/model_registry.h"
#include "pair.h"

namespace scd::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::IsEmpty;

// "name type label,label"
using Listing = std::set<std::string>;

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) all += (all.empty() ? "" : ",") + text;
  return all;
}

std::string name_of(MetricKind kind) {
  return kind == MetricKind::kCounter ? "counter" : kind == MetricKind::kGauge ? "gauge" : "histogram";
}

Listing exposed(const MetricsRegistry& registry) {
  Listing listing;
  for (const MetricSnapshot& metric : registry.snapshot()) {
    listing.insert(metric.name.name + " " + name_of(metric.kind) + " " + joined(metric.name.labels));
    for (const MetricSample& sample : metric.samples) EXPECT_EQ(sample.labels.size(), metric.name.labels.size());
  }
  return listing;
}

// The rows of the table below a heading of docs/metrics.md.
Listing documented(const std::string& heading) {
  std::ifstream file(std::string(SCD_SOURCE_DIR) + "/docs/metrics.md");
  Listing listing;
  std::string line, section;
  const std::regex row(R"(\| `(scd_\w+)` \| (\w+) \| ?(.*?) ?\| .*\|)"), label("`(\\w+)`");
  while (std::getline(file, line)) {
    if (line.starts_with("## ")) section = line.substr(3);
    std::smatch cells;
    if (section != heading || !std::regex_match(line, cells, row)) continue;
    const std::string cell = cells[3];
    std::vector<std::string> labels;
    for (std::sregex_iterator at(cell.begin(), cell.end(), label), end; at != end; ++at) labels.push_back((*at)[1]);
    EXPECT_TRUE(listing.insert(cells[1].str() + " " + cells[2].str() + " " + joined(labels)).second) << line;
  }
  return listing;
}

class MetricsTest : public PairTest {
 protected:
  // Of a histogram, how often it was observed. 0 where there is no such series.
  static double value(const MetricsRegistry& registry, const std::string& name, const LabelValues& labels = {}) {
    for (const MetricSnapshot& metric : registry.snapshot()) {
      if (metric.name.name != name) continue;
      for (const MetricSample& sample : metric.samples) {
        if (sample.labels == labels) return sample.histogram ? observed(*sample.histogram) : sample.value;
      }
      return 0;
    }
    ADD_FAILURE() << "no metric " << name;
    return -1;
  }
  static double observed(const Histogram::Counts& counts) {
    double sum = 0;
    for (const uint64_t bucket : counts.observed) sum += static_cast<double>(bucket);
    return sum;
  }
  static double sum_of(const MetricsRegistry& registry, const std::string& name, const LabelValues& labels = {}) {
    for (const MetricSnapshot& metric : registry.snapshot()) {
      for (const MetricSample& sample : metric.samples) {
        if (metric.name.name == name && sample.labels == labels) return sample.histogram->sum;
      }
    }
    return 0;
  }
  double decode(const std::string& name, const LabelValues& labels = {}) const {
    return value(decode_server->metrics(), name, labels);
  }
  double prefill(const std::string& name, const LabelValues& labels = {}) const {
    return value(prefill_servers.front()->metrics(), name, labels);
  }
  // The decode servers' data planes, as the prefill server knows them.
  std::vector<std::string> peers() const {
    std::vector<std::string> addresses;
    for (const MetricSnapshot& metric : prefill_servers.front()->metrics().snapshot()) {
      if (metric.name.name != "scd_prefill_peer_info") continue;
      for (const MetricSample& sample : metric.samples) addresses.push_back(sample.labels.at(0));
    }
    return addresses;
  }
  std::string endpoint() const { return prefill_servers.front()->address(); }
};

TEST_F(MetricsTest, docs_list_exactly_what_the_servers_expose) {
  start();
  complete(greedy_request(200));
  EXPECT_EQ(exposed(decode_server->metrics()), documented("Decode server"));
  EXPECT_EQ(exposed(prefill_servers.front()->metrics()), documented("Prefill server"));
}

TEST_F(MetricsTest, answers_count_their_latencies_tokens_and_outcomes) {
  start();
  const auto request = greedy_request(200);
  for (int i = 0; i < 3; ++i) complete(request);
  EXPECT_EQ(stream(request).status.error_code(), grpc::StatusCode::OK);
  EXPECT_EQ(decode("scd_requests_total", {"length", "base"}), 4);
  EXPECT_EQ(decode("scd_requests_total", {"stop", "base"}), 0);
  EXPECT_EQ(decode("scd_time_to_first_token_seconds"), 4);
  EXPECT_EQ(decode("scd_inter_token_latency_seconds"), 4 * 11) << "12 tokens each";
  EXPECT_EQ(decode("scd_e2e_request_latency_seconds"), 4);
  EXPECT_EQ(decode("scd_prompt_tokens_total"), 4 * 200);
  EXPECT_EQ(decode("scd_generation_tokens_total"), 4 * 12);
  const auto& registry = decode_server->metrics();
  const double first = sum_of(registry, "scd_time_to_first_token_seconds");
  const double later = sum_of(registry, "scd_inter_token_latency_seconds");
  const double whole = sum_of(registry, "scd_e2e_request_latency_seconds");
  EXPECT_GT(first, 0);
  EXPECT_LE(first + later, whole);
}

TEST_F(MetricsTest, parts_of_the_time_to_the_first_token_add_up_to_the_accounts) {
  start();
  double total_ms = 0;
  for (int i = 0; i < 2; ++i) total_ms += complete(greedy_request(300)).finish().transfer().ttft_ms();
  double parts = 0;
  for (const char* part : {"queue", "prefill", "encode", "wire", "rebuild", "suffix", "first_step", "orchestration"}) {
    EXPECT_EQ(decode("scd_ttft_part_seconds", {part}), 2) << part;
    parts += sum_of(decode_server->metrics(), "scd_ttft_part_seconds", {part});
  }
  EXPECT_NEAR(parts, total_ms / 1e3, 1e-4);
}

TEST_F(MetricsTest, transfers_count_bytes_and_reused_tokens_on_both_sides) {
  start();
  const auto request = greedy_request(300);
  double wire_bytes = 0, handover_tokens = 0, cached_tokens = 0;
  for (int i = 0; i < 3; ++i) {
    const auto transfer = complete(request).finish().transfer();
    wire_bytes += static_cast<double>(transfer.wire_bytes());
    handover_tokens += static_cast<double>(transfer.handover_tokens());
    cached_tokens += static_cast<double>(transfer.cached_tokens());
  }
  EXPECT_GT(cached_tokens, 0) << "the second and third prompt were known";
  EXPECT_EQ(decode("scd_transfers_total", {endpoint(), "raw", "0"}), 3);
  EXPECT_EQ(decode("scd_transfer_bytes_total", {endpoint(), "raw", "0"}), wire_bytes);
  EXPECT_GT(decode("scd_transfer_wire_seconds_total", {endpoint(), "raw", "0"}), 0);
  EXPECT_EQ(decode("scd_handover_tokens_total"), handover_tokens);
  EXPECT_EQ(decode("scd_handover_cached_tokens_total"), cached_tokens);

  EXPECT_TRUE(eventually([&] { return prefill("scd_prefill_requests_total", {"ok"}) == 3; }));
  EXPECT_EQ(prefill("scd_prefill_request_seconds"), 3);
  EXPECT_EQ(prefill("scd_prefill_part_seconds", {"encode"}), 3);
  EXPECT_EQ(prefill("scd_prefill_handover_tokens_total"), handover_tokens);
  EXPECT_EQ(prefill("scd_prefill_cached_tokens_total"), cached_tokens);
  const PrefillCounters held = prefill_servers.front()->counters();
  EXPECT_EQ(prefill("scd_prefill_code_cache_hits_total"), static_cast<double>(held.code_cache.hits));
  EXPECT_GT(held.code_cache.hits, 0u);
  EXPECT_EQ(prefill("scd_prefill_code_cache_bytes"), static_cast<double>(held.code_cache.bytes));

  const double sent = static_cast<double>(held.transport.payload_bytes_sent);
  const double messages = static_cast<double>(held.transport.messages_sent);
  const std::string peer = peers().at(0);
  EXPECT_EQ(prefill("scd_prefill_sent_bytes_total", {peer, "raw", "0"}), sent);
  EXPECT_EQ(prefill("scd_prefill_sent_messages_total", {peer, "raw", "0"}), messages);
  EXPECT_EQ(decode("scd_received_bytes_total"), sent);
  EXPECT_EQ(decode("scd_received_messages_total"), messages);
  EXPECT_EQ(wire_bytes, sent + messages * kMessageHeaderBytes);
}

TEST_F(MetricsTest, a_request_that_fails_counts_by_its_status_and_in_no_latency) {
  start([](DecodeConfig& config) { config.limits.max_running = config.limits.max_waiting = 1; });
  auto wrong = greedy_request(50);
  wrong.set_top_p(2);
  v1::CompleteResponse response;
  complete(wrong, response);
  EXPECT_EQ(decode("scd_requests_total", {"INVALID_ARGUMENT", ""}), 1);
  EXPECT_EQ(decode("scd_time_to_first_token_seconds"), 0);

  auto endless = greedy_request(50);
  endless.set_max_tokens(1500);
  EXPECT_EQ(complete(endless, response, milliseconds(60)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(eventually([&] {
    return decode("scd_requests_total", {"DEADLINE_EXCEEDED", "base"}) +
               decode("scd_requests_total", {"CANCELLED", "base"}) ==
           1;
  })) << "the server's clock or the client's hang-up, whichever is first";
  EXPECT_EQ(decode("scd_e2e_request_latency_seconds"), 0);
  expect_idle();
}

TEST(DecodeMetricsTest, no_request_of_a_model_that_is_served_is_forgotten) {
  MetricsRegistry registry;
  const DecodeMetrics metrics(registry);
  std::vector<std::string> models{""};
  for (size_t i = 0; i < ModelRegistry::kMostModels; ++i) models.push_back("model " + std::to_string(i));
  for (const std::string& model : models) {
    metrics.requests.of({"stop", model})->add();
    metrics.requests.of({"length", model})->add();
  }
  EXPECT_EQ(metrics.requests.of({"stop", models[1]})->value(), 1);
  EXPECT_EQ(metrics.requests.series().size(), 2 * models.size());
}

TEST_F(MetricsTest, gauges_show_what_is_held_and_return_to_zero) {
  start_prefill([](PrefillConfig& config) { config.transport.bandwidth_gbps = 0.0002; });
  start_decode();
  EXPECT_EQ(decode("scd_kv_cache_pages"), 1024);
  EXPECT_EQ(prefill("scd_prefill_kv_cache_pages"), 512);
  grpc::ClientContext context;
  v1::CompleteResponse response;
  std::thread client([&] { (void)stub->Complete(&context, greedy_request(600), &response); });
  EXPECT_TRUE(wait_for_lease());
  EXPECT_EQ(decode("scd_num_requests_running"), 1);
  EXPECT_EQ(decode("scd_kv_cache_pages_used"), 38) << "600 tokens in pages of 16";
  EXPECT_TRUE(eventually([&] { return decode("scd_transfers_running") == 1; }));
  EXPECT_EQ(decode("scd_staging_leases"), 1);
  EXPECT_TRUE(eventually([&] { return prefill("scd_prefill_num_requests_running") == 1; }));
  EXPECT_TRUE(eventually([&] { return prefill("scd_prefill_sends_pending") > 0; }));
  context.TryCancel();
  client.join();
  expect_idle();
  for (const char* gauge :
       {"scd_num_requests_running", "scd_num_requests_waiting", "scd_kv_cache_pages_used", "scd_transfers_running",
        "scd_prefill_streams", "scd_staging_leases", "scd_staging_slots_used"}) {
    EXPECT_EQ(decode(gauge), 0) << gauge;
  }
  EXPECT_TRUE(eventually([&] { return prefill("scd_prefill_sends_pending") == 0; }));
  EXPECT_TRUE(eventually([&] { return decode("scd_requests_total", {"CANCELLED", "base"}) == 1; }));
  EXPECT_EQ(prefill("scd_prefill_requests_total", {"CANCELLED"}), 1);
}

TEST_F(MetricsTest, failures_and_fallbacks_count_by_reason) {
  start_decode([](DecodeConfig& config) { config.prefill.endpoints = {"127.0.0.1:1"}; });
  complete(greedy_request(150));
  EXPECT_EQ(decode("scd_transfer_failures_total", {"127.0.0.1:1", "UNAVAILABLE"}), 1);
  EXPECT_EQ(decode("scd_fallbacks_total", {"local_prefill", "UNAVAILABLE"}), 1);
  EXPECT_EQ(decode("scd_requests_total", {"length", "base"}), 1);
  EXPECT_EQ(decode("scd_prefill_endpoint_up", {"127.0.0.1:1", ""}), 0);
  EXPECT_EQ(decode("scd_handover_tokens_total"), 0);

  start_prefill();
  start_decode(
      [](DecodeConfig& config) { config.prefill.endpoints.insert(config.prefill.endpoints.begin(), "127.0.0.1:1"); });
  complete(greedy_request(150));
  EXPECT_EQ(decode("scd_fallbacks_total", {"local_prefill", "UNAVAILABLE"}), 0);
  EXPECT_EQ(decode("scd_fallbacks_total", {"other_endpoint", "UNAVAILABLE"}),
            decode("scd_transfer_failures_total", {"127.0.0.1:1", "UNAVAILABLE"}));
  EXPECT_EQ(decode("scd_transfers_total", {endpoint(), "raw", "0"}), 1);
}

TEST_F(MetricsTest, corrupted_messages_are_a_failure_with_data_loss) {
  network.set_faults([](const MessageHeader&) { return LoopbackFault{.flip_payload_bit = 5}; });
  start();
  complete(greedy_request(150));
  EXPECT_EQ(decode("scd_transfer_failures_total", {endpoint(), "DATA_LOSS"}), 1);
  EXPECT_EQ(decode("scd_fallbacks_total", {"local_prefill", "DATA_LOSS"}), 1);
}

TEST_F(MetricsTest, predictions_stand_beside_what_came_of_them_once_the_link_is_measured) {
  start([](DecodeConfig& config) { config.codec.mode = CodecMode::kAuto; });
  auto request = greedy_request(300);
  request.mutable_codec()->set_exact(true);
  EXPECT_FALSE(complete(request).finish().transfer().has_predicted_transfer_ms());
  const auto ratios = [&] {
    return decode("scd_transfer_measured_to_predicted_ratio", {"raw"}) +
           decode("scd_transfer_measured_to_predicted_ratio", {"lossless"});
  };
  EXPECT_EQ(ratios(), 0) << "nothing was measured before the first";
  double predicted_ms = 0, measured_ms = 0;
  for (uint32_t seed = 2; seed < 5; ++seed) {
    auto other = greedy_request(300, seed);
    other.mutable_codec()->set_exact(true);
    const v1::TransferAccount account = complete(other).finish().transfer();
    predicted_ms += account.predicted_transfer_ms();
    measured_ms += account.measured_transfer_ms();
  }
  EXPECT_EQ(ratios(), 3);
  const auto sum = [&](const char* name) { return decode(name, {"raw"}) + decode(name, {"lossless"}); };
  EXPECT_GT(predicted_ms, 0);
  EXPECT_NEAR(sum("scd_transfer_predicted_seconds_total"), predicted_ms / 1e3, 1e-9);
  EXPECT_NEAR(sum("scd_transfer_measured_seconds_total"), measured_ms / 1e3, 1e-9);
}

TEST_F(MetricsTest, both_servers_listen_where_they_are_told) {
  start_prefill([](PrefillConfig& config) { config.metrics.listen = "127.0.0.1:0"; });
  start_decode();
  EXPECT_THAT(prefill_servers.front()->metrics_address(), ::testing::StartsWith("127.0.0.1:"));
  EXPECT_THAT(decode_server->metrics_address(), IsEmpty());
}

}  // namespace
}  // namespace scd::testing
