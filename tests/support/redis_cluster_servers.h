// A Redis Cluster of a test's own: three servers on ports the kernel had free, a third of the slots each.
#pragma once

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/redis_server.h"

namespace scd::testing {

class RedisClusterServers {
 public:
  static constexpr size_t kServers = 3;

  RedisClusterServers() {
    folder_ = std::filesystem::temp_directory_path() / ("scd-redis-cluster-" + std::to_string(::getpid()));
    for (size_t i = 0; i < kServers; ++i) start(i);
    for (size_t i = 0; i < kServers; ++i) {
      const int first = static_cast<int>(i * 16384 / kServers), last = static_cast<int>((i + 1) * 16384 / kServers) - 1;
      command(i, {"CLUSTER", "ADDSLOTSRANGE", std::to_string(first), std::to_string(last)});
      command(i, {"CLUSTER", "SET-CONFIG-EPOCH", std::to_string(i + 1)});
    }
    for (size_t i = 1; i < kServers; ++i) command(0, {"CLUSTER", "MEET", "127.0.0.1", std::to_string(ports_[i])});
    for (size_t i = 0; i < kServers; ++i) {
      // A server takes writes only some time after it knows of the others.
      for (const char* wanted : {"cluster_slots_ok:16384", "cluster_state:ok"}) {
        wait_until([&] { return command(i, {"CLUSTER", "INFO"}).find(wanted) != std::string::npos; });
      }
    }
  }
  ~RedisClusterServers() {
    for (size_t i = 0; i < kServers; ++i) stop(i);
    std::filesystem::remove_all(folder_);
  }
  RedisClusterServers(const RedisClusterServers&) = delete;
  RedisClusterServers& operator=(const RedisClusterServers&) = delete;

  std::string url(size_t server) const { return "redis://127.0.0.1:" + std::to_string(ports_[server]); }
  std::string id(size_t server) { return command(server, {"CLUSTER", "MYID"}); }

  // The answer as text; an error's is its text, too.
  std::string command(size_t server, const std::vector<std::string>& words) {
    redisContext* context = redisConnect("127.0.0.1", ports_[server]);
    if (context == nullptr || context->err != 0) {
      if (context != nullptr) redisFree(context);
      return "no connection";
    }
    std::vector<const char*> starts;
    std::vector<size_t> lengths;
    for (const std::string& word : words) {
      starts.push_back(word.data());
      lengths.push_back(word.size());
    }
    auto* reply = static_cast<redisReply*>(
        redisCommandArgv(context, static_cast<int>(words.size()), starts.data(), lengths.data()));
    std::string text = reply == nullptr                     ? "no answer"
                       : reply->type == REDIS_REPLY_INTEGER ? std::to_string(reply->integer)
                       : reply->str == nullptr              ? ""
                                                            : std::string(reply->str, reply->len);
    if (reply != nullptr) freeReplyObject(reply);
    redisFree(context);
    return text;
  }
  void stop(size_t server) {
    if (pids_[server] <= 0) return;
    ::kill(pids_[server], SIGKILL);
    ::waitpid(pids_[server], nullptr, 0);
    pids_[server] = -1;
  }

 private:
  // The cluster's own port is 10000 higher: it must be one, too.
  static int free_port() {
    for (int tries = 0; tries < 100; ++tries) {
      const int probe = ::socket(AF_INET, SOCK_STREAM, 0);
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t length = sizeof address;
      ::bind(probe, reinterpret_cast<sockaddr*>(&address), sizeof address);
      ::getsockname(probe, reinterpret_cast<sockaddr*>(&address), &length);
      ::close(probe);
      if (const int port = ntohs(address.sin_port); port > 0 && port + 10000 <= 65535) return port;
    }
    return 0;
  }
  template <class Condition>
  static void wait_until(Condition condition) {
    for (int i = 0; i < 2000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  // Its two ports were free a moment ago: a server that found one of them taken has ended, and others are tried.
  void start(size_t server) {
    const std::string directory = (folder_ / std::to_string(server)).string();
    std::filesystem::create_directories(directory);
    for (int tries = 0; tries < 20; ++tries) {
      ports_[server] = free_port();
      run(server, directory);
      const std::string its_own = "process_id:" + std::to_string(pids_[server]) + "\r";
      wait_until([&] {
        return ended(server) || command(server, {"INFO", "server"}).find(its_own) != std::string::npos;
      });
      if (pids_[server] > 0) return;
    }
  }
  bool ended(size_t server) {
    if (::waitpid(pids_[server], nullptr, WNOHANG) != pids_[server]) return false;
    pids_[server] = -1;
    return true;
  }
  void run(size_t server, const std::string& directory) {
    const std::string port = std::to_string(ports_[server]);
    pids_[server] = ::fork();
    if (pids_[server] != 0) return;
    if (::freopen("/dev/null", "w", stdout) == nullptr) ::_exit(1);
    ::execl(kRedisBinary, "redis-server", "--port", port.c_str(), "--bind", "127.0.0.1", "--save", "", "--dir",
            directory.c_str(), "--cluster-enabled", "yes", "--cluster-node-timeout", "60000",
            "--cluster-require-full-coverage", "no", static_cast<char*>(nullptr));
    ::_exit(1);
  }

  std::filesystem::path folder_;
  std::array<int, kServers> ports_{};
  std::array<pid_t, kServers> pids_{};
};

}  // namespace scd::testing
