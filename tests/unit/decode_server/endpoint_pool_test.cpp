#include "decode_server/receive/endpoint_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/rpc/server.h"

namespace scd {
namespace {

using std::chrono::milliseconds;
using ::testing::UnorderedElementsAre;
using Addresses = std::vector<std::string>;

const Failure kDown{ErrorCode::kUnavailable, "down"};

PrefillOptions three_endpoints() {
  PrefillOptions options;
  options.endpoints = {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"};
  options.outlier.ejection = options.outlier.max_ejection = std::chrono::hours(1);
  return options;
}

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = ServingClock::now() + std::chrono::seconds(15);
  while (!condition()) {
    if (ServingClock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

// What a name has, for a test to change.
class Names {
 public:
  void set(Result<Addresses> addresses) {
    std::scoped_lock lock(mutex_);
    addresses_ = std::move(addresses);
  }
  EndpointPool::LookUp look_up() {
    return [this](const std::string&) {
      std::scoped_lock lock(mutex_);
      ++asked_;
      return addresses_;
    };
  }
  int asked() const {
    std::scoped_lock lock(mutex_);
    return asked_;
  }

 private:
  mutable std::mutex mutex_;
  int asked_ = 0;
  Result<Addresses> addresses_{Addresses{}};
};

PrefillOptions of_a_name(milliseconds every) {
  PrefillOptions options;
  options.endpoints = {"prefill.example.org:7001"};
  options.resolve_every = every;
  return options;
}

Addresses addresses_of(const EndpointPool& pool) {
  Addresses addresses;
  for (const EndpointFacts& facts : pool.reports()) {
    if (!facts.draining) addresses.push_back(facts.address);
  }
  return addresses;
}

TEST(EndpointPool, spreads_requests_over_those_with_fewest_outstanding) {
  EndpointPool pool(three_endpoints(), {});
  std::map<std::string, EndpointPool::Peer> chosen;
  for (int i = 0; i < 3; ++i) {
    const auto peer = pool.acquire({});
    chosen.emplace(peer->address, *peer);
  }
  ASSERT_EQ(chosen.size(), 3u);
  pool.release(chosen.at("127.0.0.1:2"));
  EXPECT_EQ(pool.acquire({})->address, "127.0.0.1:2");
}

TEST(EndpointPool, avoids_one_that_failed_while_there_are_others) {
  EndpointPool pool(three_endpoints(), {});
  const auto failing = pool.acquire({});
  EXPECT_TRUE(pool.failed(*failing, kDown));
  for (int i = 0; i < 6; ++i) EXPECT_NE(pool.acquire({})->address, failing->address);
  for (const EndpointFacts& facts : pool.reports()) {
    EXPECT_EQ(facts.ejected, facts.address == failing->address);
    EXPECT_EQ(facts.reason == "down", facts.ejected);
  }
}

TEST(EndpointPool, forgets_what_a_failed_one_said_of_itself) {
  EndpointPool pool(three_endpoints(), {});
  const auto peer = pool.acquire({});
  v1::GetProducerInfoResponse info;
  info.set_model("tiny");
  pool.set_info(*peer, info);
  ASSERT_NE(pool.info(*peer), nullptr);
  EXPECT_EQ(pool.info(*peer)->model(), "tiny");
  pool.failed(*peer, kDown);
  EXPECT_EQ(pool.info(*peer), nullptr);
}

TEST(EndpointPool, a_name_stands_for_all_its_addresses) {
  Names names;
  names.set(Addresses{"10.0.0.1:7001", "10.0.0.2:7001"});
  EndpointPool pool(of_a_name(std::chrono::hours(1)), {}, names.look_up());
  EXPECT_THAT(addresses_of(pool), UnorderedElementsAre("10.0.0.1:7001", "10.0.0.2:7001"));
}

TEST(EndpointPool, what_a_name_no_longer_has_drains_and_what_is_new_is_asked) {
  Names names;
  names.set(Addresses{"10.0.0.1:7001"});
  EndpointPool pool(of_a_name(milliseconds(100)), {}, names.look_up());
  const auto running = pool.acquire({});
  ASSERT_TRUE(running.has_value());
  names.set(Addresses{"10.0.0.2:7001"});
  ASSERT_TRUE(eventually([&] { return addresses_of(pool) == Addresses{"10.0.0.2:7001"}; }));
  EXPECT_EQ(pool.acquire({})->address, "10.0.0.2:7001");
  EXPECT_EQ(pool.reports().size(), 2u) << "the first one has a request";
  pool.release(*running);
  EXPECT_EQ(pool.reports().size(), 1u);
  pool.failed(*running, kDown);  // late words
}

TEST(EndpointPool, a_name_that_cannot_be_looked_up_keeps_the_addresses_it_had) {
  Names names;
  names.set(Addresses{"10.0.0.1:7001"});
  EndpointPool pool(of_a_name(milliseconds(100)), {}, names.look_up());
  names.set(Failure{ErrorCode::kUnavailable, "no such name"});
  const int asked = names.asked();
  ASSERT_TRUE(eventually([&] { return names.asked() > asked + 1; }));
  EXPECT_EQ(addresses_of(pool), Addresses{"10.0.0.1:7001"});
}

TEST(EndpointPool, says_why_there_is_nobody_to_ask_and_looks_again) {
  Names names;
  names.set(Failure{ErrorCode::kUnavailable, "no such name"});
  EndpointPool pool(of_a_name(std::chrono::hours(1)), {}, names.look_up());
  EXPECT_FALSE(pool.acquire({}).has_value());
  EXPECT_EQ(pool.nobody().message, "no such name");
  EXPECT_EQ(pool.reports().at(0).reason, "no such name");
  names.set(Addresses{"10.0.0.1:7001"});
  EXPECT_TRUE(eventually([&] { return pool.acquire({}).has_value(); })) << "long before it is time to";
}

class NoService : public v1::PrefillService::Service {};

TEST(EndpointPool, one_whose_health_says_it_does_not_serve_is_avoided_until_it_does) {
  NoService service;
  RpcServer sick(GrpcOptions{}, {{v1::PrefillService::service_full_name(), &service}});
  RpcServer well(GrpcOptions{}, {{v1::PrefillService::service_full_name(), &service}});
  well.set_serving(true);
  PrefillOptions options;
  options.endpoints = {sick.address(), well.address()};
  options.health_every = milliseconds(1000);  // how long a check may take, too
  EndpointPool pool(options, {});
  const auto healthy = [&](const std::string& address) {
    pool.watch();
    for (const EndpointFacts& facts : pool.reports()) {
      if (facts.address == address) return facts.healthy;
    }
    return false;
  };
  ASSERT_TRUE(eventually([&] { return !healthy(sick.address()) && healthy(well.address()); }));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(pool.acquire({})->address, well.address());
  sick.set_serving(true);
  ASSERT_TRUE(eventually([&] { return healthy(sick.address()); }));
  EXPECT_EQ(pool.acquire({})->address, sick.address());
  well.shutdown(ServingClock::now());
  EXPECT_TRUE(eventually([&] { return !healthy(well.address()); }));
}

}  // namespace
}  // namespace scd
