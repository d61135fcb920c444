#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "common/rpc/channel.h"
#include "common/rpc/daemon.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

class FixedInfo : public v1::PrefillService::Service {
  grpc::Status GetProducerInfo(grpc::ServerContext*, const v1::GetProducerInfoRequest*,
                               v1::GetProducerInfoResponse* response) override {
    response->set_layers(30);
    return grpc::Status::OK;
  }
};

TEST(Rpc, EveryErrorCodeSurvivesTheWayThroughAStatus) {
  for (int code = 1; code <= 15; ++code) {
    const Failure failure{static_cast<ErrorCode>(code), "why"};
    EXPECT_EQ(to_failure(to_status(failure)).code, failure.code);
    EXPECT_EQ(to_failure(to_status(failure)).message, "why");
  }
  EXPECT_EQ(to_failure({grpc::StatusCode::UNAUTHENTICATED, ""}).code, ErrorCode::kPermissionDenied);
}

TEST(Rpc, ACodeThatIsNoErrorIsUnknown) {
  for (const uint32_t code : {0U, 17U, 4'000'000'000U}) EXPECT_EQ(to_failure(code, "why").code, ErrorCode::kUnknown);
  EXPECT_EQ(to_failure(14, "why").code, ErrorCode::kUnavailable);
}

TEST(Rpc, PortZeroBindsAPortAndSaysWhich) {
  FixedInfo service;
  RpcServer server({.listen = "127.0.0.1:0"}, {{v1::PrefillService::service_full_name(), &service}});
  EXPECT_GT(server.port(), 0);
  EXPECT_EQ(server.address(), "127.0.0.1:" + std::to_string(server.port()));
  auto stub = v1::PrefillService::NewStub(make_channel(server.address(), {}));
  grpc::ClientContext context;
  v1::GetProducerInfoResponse response;
  EXPECT_TRUE(stub->GetProducerInfo(&context, {}, &response).ok());
  EXPECT_EQ(response.layers(), 30U);
}

TEST(Rpc, APortInUseIsAnErrorThatNamesIt) {
  FixedInfo service;
  const std::vector<RpcService> services = {{v1::PrefillService::service_full_name(), &service}};
  RpcServer first({.listen = "127.0.0.1:0"}, services);
  FixedInfo other;
  try {
    RpcServer second({.listen = first.address()}, {{v1::PrefillService::service_full_name(), &other}});
    FAIL() << "two servers on one port";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_THAT(error.what(), HasSubstr(first.address()));
  }
}

TEST(Rpc, AnAddressThatIsNotHostAndPortIsRefused) {
  for (const char* listen : {"", "localhost", ":80", "a:b", "a:99999", "a:"}) {
    EXPECT_THROW(RpcServer({.listen = listen}, {}), Error) << listen;
  }
}

TEST(Rpc, TlsFilesThatAreMissingOrHalfGivenAreRefused) {
  EXPECT_THROW(RpcServer({.listen = "127.0.0.1:0", .tls = {.certificate = "/nowhere.pem", .key = "/nowhere.key"}}, {}),
               Error);
  EXPECT_THROW(RpcServer({.listen = "127.0.0.1:0", .tls = {.key = "/nowhere.key"}}, {}), Error);
  EXPECT_THROW(RpcServer({.listen = "127.0.0.1:0", .tls = {.ca = "/nowhere.pem"}}, {}), Error);
}

// grpc.health.v1 by its wire format: the response's field 1 is the status, 1 serving, 2 not serving.
int health_of(const std::string& address, const std::string& service) {
  grpc::GenericStub stub(make_channel(address, {}));
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  std::string request;
  if (!service.empty()) request = std::string{'\x0A', static_cast<char>(service.size())} + service;
  grpc::Slice slice(request);
  grpc::ByteBuffer bytes(&slice, 1);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", bytes, &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
  if (!status.ok()) return -static_cast<int>(status.error_code());
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(answer.Dump(&slices).ok());
  return slices.empty() || slices[0].size() < 2 ? 0 : slices[0].begin()[1];
}

TEST(Rpc, HealthIsServingOnlyBetweenWarmUpAndStop) {
  FixedInfo service;
  const std::string name = v1::PrefillService::service_full_name();
  RpcServer server({.listen = "127.0.0.1:0"}, {{name, &service}});
  EXPECT_EQ(health_of(server.address(), ""), 2);
  EXPECT_EQ(health_of(server.address(), name), 2);
  server.set_serving(true);
  EXPECT_EQ(health_of(server.address(), ""), 1);
  EXPECT_EQ(health_of(server.address(), name), 1);
  EXPECT_EQ(health_of(server.address(), "other"), -grpc::StatusCode::NOT_FOUND);
  server.set_serving(false);
  EXPECT_EQ(health_of(server.address(), ""), 2);
}

TEST(Daemon, ASignalEndsTheWaitAndASecondOneCallsBack) {
  ShutdownSignal signal;
  std::atomic<bool> second = false;
  signal.on_second([&second] { second.store(true, std::memory_order_relaxed); });
  ASSERT_EQ(kill(getpid(), SIGTERM), 0);
  signal.wait();
  EXPECT_FALSE(second.load(std::memory_order_relaxed));
  ASSERT_EQ(kill(getpid(), SIGINT), 0);
  const auto deadline = std::chrono::steady_clock::now() + 5s;
  while (!second.load(std::memory_order_relaxed) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_TRUE(second.load(std::memory_order_relaxed));
}

TEST(Daemon, WhatTheSecondSignalCallsIsOverWhenItIsTakenBack) {
  ShutdownSignal signal;
  std::promise<void> began;
  std::atomic<bool> ended = false;
  signal.on_second([&] {
    began.set_value();
    std::this_thread::sleep_for(100ms);
    ended.store(true, std::memory_order_relaxed);
  });
  signal.request();
  signal.wait();
  signal.request();
  began.get_future().wait();
  signal.on_second({});
  EXPECT_TRUE(ended.load(std::memory_order_relaxed));
}

TEST(Daemon, ThePortFileHoldsThePort) {
  const auto file = std::filesystem::temp_directory_path() / ("scd_port_" + std::to_string(getpid()));
  write_port_file(file, 4711);
  int port = 0;
  std::ifstream(file) >> port;
  EXPECT_EQ(port, 4711);
  std::filesystem::remove(file);
  EXPECT_THROW(write_port_file("/nowhere/port", 1), Error);
}

}  // namespace
}  // namespace scd
