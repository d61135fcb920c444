// Two processes over UCX: what happens when one of them misbehaves or dies.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <memory>

#include "transport_test_kit.h"

extern char** environ;

namespace scd {
namespace {

using namespace testing_kit;

// A child process, killed with its owner; its standard input and output are pipes.
class Child {
 public:
  explicit Child(std::vector<std::string> args) {
    args.insert(args.begin(), SCD_TRANSPORT_PEER);
    std::array<int, 2> in{};
    std::array<int, 2> out{};
    if (pipe(in.data()) != 0 || pipe(out.data()) != 0) std::abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    for (const int descriptor : {in[0], in[1], out[0], out[1]}) {
      posix_spawn_file_actions_addclose(&actions, descriptor);
    }
    std::vector<char*> argv;
    for (auto& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    stdin_ = in[1];
    stdout_ = fdopen(out[0], "r");
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    close(stdin_);
    std::fclose(stdout_);
    kill(SIGKILL);
    wait();
  }

  void kill(int signal) {
    if (pid_ > 0) ::kill(pid_, signal);
  }
  int wait() {
    int status = -1;
    if (pid_ > 0) waitpid(pid_, &status, 0);
    pid_ = -1;
    return status;
  }
  std::string read_line() {
    std::array<char, 256> line{};
    if (std::fgets(line.data(), line.size(), stdout_) == nullptr) return "";
    std::string text(line.data());
    return text.substr(0, text.find('\n'));
  }

 private:
  pid_t pid_ = -1;
  int stdin_ = -1;
  std::FILE* stdout_ = nullptr;
};

class UcxProcesses : public testing::TestWithParam<const char*> {
 protected:
  static constexpr LeaseKey kKey{7, 1};

  static TransportOptions options() {
    TransportOptions options;
    options.listen_host = "127.0.0.1";
    options.transports = GetParam();
    options.slot_bytes = 4 << 20;
    options.slots = 8;
    options.peer_timeout = 500ms;
    return options;
  }
  Child sender_of(LeaseKey key, size_t bytes, size_t count) {
    return Child({"send", GetParam(), transport_->address(), std::to_string(key.request_id), std::to_string(bytes),
                  std::to_string(count)});
  }
  bool everything_is_free() {
    return eventually([&] {
      const auto staging = transport_->counters().staging;
      return staging.slots_in_use == 0 && staging.live_leases == 0 && staging.slots_reserved == 0;
    });
  }
  // Receives until the sender is in full swing, then lets `harm` befall it.
  void expect_failure_after(void (*harm)(Child&)) {
    std::atomic<int> received{0};
    LeaseRequest request = collector_.request(kKey, 8);
    request.on_message = [&](const ReceivedMessage&) { ++received; };
    Lease lease = transport_->open_lease(std::move(request)).value_or_throw();
    Child sender = sender_of(kKey, 4 << 20, 0);
    ASSERT_TRUE(eventually([&] { return received >= 8; }));
    harm(sender);
    const auto before = Clock::now();
    const auto failure = collector_.failure();
    ASSERT_TRUE(failure);
    EXPECT_EQ(failure->code, ErrorCode::kUnavailable) << failure->message;
    EXPECT_LT(Clock::now() - before, 1500ms);
    lease.close();
    EXPECT_TRUE(everything_is_free());
  }

  std::unique_ptr<Transport> transport_ = make_transport(options());
  Collector collector_;
};

TEST_P(UcxProcesses, carry_small_and_large_messages) {
  for (const size_t bytes : {100UL, 4UL << 20}) {
    const LeaseKey key{bytes, 1};
    Lease lease = transport_->open_lease(collector_.request(key, 8)).value_or_throw();
    Child sender = sender_of(key, bytes, 8);
    for (uint32_t i = 0; i < 8; ++i) {
      const auto message = collector_.next();
      ASSERT_TRUE(message);
      EXPECT_EQ(message->header().sequence, i);
      EXPECT_TRUE(message->verify_payload().ok());
    }
    EXPECT_EQ(sender.read_line(), "8");
  }
  EXPECT_TRUE(everything_is_free());
}

TEST_P(UcxProcesses, a_killed_sender_fails_its_lease_in_time) {
  expect_failure_after([](Child& sender) { sender.kill(SIGKILL); });
}

TEST_P(UcxProcesses, a_stopped_sender_fails_its_lease_in_time_or_leaves_it_idle) {
  // A stopped process is seen by the transport only while bytes are on their way; between messages only the control
  // stream can tell. Either way nothing may leak.
  std::atomic<int> received{0};
  LeaseRequest request = collector_.request(kKey, 8);
  request.on_message = [&](const ReceivedMessage&) { ++received; };
  Lease lease = transport_->open_lease(std::move(request)).value_or_throw();
  Child sender = sender_of(kKey, 4 << 20, 0);
  ASSERT_TRUE(eventually([&] { return received >= 8; }));
  sender.kill(SIGSTOP);
  collector_.failure(700ms);
  lease.close();
  EXPECT_TRUE(everything_is_free());
}

TEST_P(UcxProcesses, a_killed_receiver_ends_sends_in_time) {
  Child receiver({"receive", GetParam(), "7", "8"});
  const std::string peer = receiver.read_line();
  ASSERT_FALSE(peer.empty());
  ASSERT_TRUE(send_and_wait(*transport_, make_send(peer, kKey, 0, 4 << 20)).ok());
  std::vector<PendingSend> sends;
  for (uint32_t i = 0; i < 8; ++i) {
    sends.push_back(make_send(peer, kKey, i, 4 << 20));
    ASSERT_TRUE(transport_->send(std::move(sends.back().job)).ok());
  }
  receiver.kill(SIGKILL);
  receiver.wait();
  const auto before = Clock::now();
  auto last = make_send(peer, kKey, 9, 4 << 20);
  ASSERT_TRUE(transport_->send(std::move(last.job)).ok());
  ASSERT_EQ(last.ended.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(last.ended.get().failure().code, ErrorCode::kUnavailable);
  EXPECT_LT(Clock::now() - before, 1500ms);
  for (auto& send : sends) ASSERT_EQ(send.ended.wait_for(kPatience), std::future_status::ready);
  EXPECT_TRUE(eventually([&] { return transport_->counters().sends_pending == 0; }));
}

TEST_P(UcxProcesses, a_stopped_receiver_ends_sends_in_time) {
  Child receiver({"receive", GetParam(), "7", "8"});
  const std::string peer = receiver.read_line();
  ASSERT_TRUE(send_and_wait(*transport_, make_send(peer, kKey, 0, 4 << 20)).ok());
  receiver.kill(SIGSTOP);
  const auto before = Clock::now();
  const auto ended = send_and_wait(*transport_, make_send(peer, kKey, 1, 4 << 20));
  EXPECT_EQ(ended.failure().code, ErrorCode::kUnavailable);
  EXPECT_LT(Clock::now() - before, 1500ms);
  EXPECT_TRUE(eventually([&] { return transport_->counters().sends_pending == 0; }));
}

TEST_P(UcxProcesses, a_stranger_is_shown_the_door) {
  Lease lease = transport_->open_lease(collector_.request({99, 1}, 8)).value_or_throw();
  Child stranger = sender_of(kKey, 100'000, 4);
  EXPECT_TRUE(eventually([&] { return transport_->counters().connections_refused > 0; }));
  EXPECT_NE(stranger.read_line(), "");  // it ends in good order
  EXPECT_FALSE(collector_.next(0ms));
  EXPECT_FALSE(collector_.failure(0ms));
  EXPECT_GE(transport_->counters().staging.rejected[static_cast<size_t>(RejectReason::kUnknownLease)], 1U);
}

TEST_P(UcxProcesses, closing_a_lease_in_mid_transfer_drops_the_rest_and_leaks_nothing) {
  Lease lease = transport_->open_lease(collector_.request(kKey, 8)).value_or_throw();
  Child sender = sender_of(kKey, 4 << 20, 40);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(collector_.next());
  lease.close();
  EXPECT_EQ(sender.read_line(), "40");  // it cannot know: what is dropped ends well for the sender
  while (collector_.next(0ms)) continue;
  EXPECT_TRUE(everything_is_free());
  EXPECT_GT(transport_->counters().staging.late_messages_dropped, 0U);
}

TEST_P(UcxProcesses, know_what_they_are_connected_by) {
  Child receiver({"receive", GetParam(), "7", "8"});
  ASSERT_TRUE(send_and_wait(*transport_, make_send(receiver.read_line(), kKey, 0, 100'000)).ok());
  const auto peers = transport_->peers();
  ASSERT_EQ(peers.size(), 1U);
  EXPECT_FALSE(peers[0].rdma);
  const bool shared_memory = std::string(GetParam()) != "tcp";
  EXPECT_EQ(peers[0].lanes.find("tcp") == std::string::npos, shared_memory) << peers[0].lanes;
}

INSTANTIATE_TEST_SUITE_P(over, UcxProcesses, testing::Values("tcp", "sm,self"), [](const auto& instance) {
  return std::string(instance.param) == "tcp" ? "tcp" : "shared_memory";
});

TEST(UcxTransport, refuses_to_start_without_rdma_when_rdma_is_required) {
  TransportOptions options;
  options.require = TransportRequirement::kRdma;
  try {
    const auto transport = make_transport(options);
    GTEST_SKIP() << "this machine has RDMA: " << transport->description();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailedPrecondition) << error.what();
    EXPECT_NE(std::string(error.what()).find("rdma"), std::string::npos);
  }
}

TEST(UcxTransport, takes_the_first_free_port_of_its_range_and_names_a_full_one) {
  TransportOptions options;
  options.listen_host = "127.0.0.1";
  options.transports = "tcp";
  const auto first = make_transport(options);
  const auto taken = static_cast<uint16_t>(std::stoi(first->address().substr(first->address().rfind(':') + 1)));
  options.port_first = taken;
  try {
    make_transport(options);
    FAIL() << "two transports on one port";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable) << error.what();
  }
  if (taken > 65500) return;
  options.port_last = static_cast<uint16_t>(taken + 20);
  EXPECT_NE(make_transport(options)->address(), first->address());
}

TEST(UcxTransport, refuses_addresses_it_cannot_use) {
  TransportOptions options;
  options.listen_host = "192.0.2.77";  // of nobody (RFC 5737)
  EXPECT_THROW(make_transport(options), Error);
  options.listen_host = "127.0.0.1";
  const auto transport = make_transport(options);
  const auto ended = send_and_wait(*transport, make_send("somewhere:1", {7, 1}, 0, 10));
  EXPECT_EQ(ended.failure().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace scd
