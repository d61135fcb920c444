// A Redis server of a test's own on a socket in a temporary folder; tests skip aloud where its binary is not.
#pragma once

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

namespace scd::testing {

// The server's code is in Debian's redis-tools under another name; which program it is, its first argument says.
inline constexpr const char* kRedisBinary = "/usr/bin/redis-check-rdb";

class RedisServer {
 public:
  static bool available() { return std::filesystem::exists(kRedisBinary); }

  explicit RedisServer(const std::string& password = "") {
    folder_ = std::filesystem::temp_directory_path() / ("scd-redis-" + std::to_string(::getpid()) + "-" + next());
    std::filesystem::create_directories(folder_);
    password_ = password;
    start();
  }
  ~RedisServer() {
    stop();
    std::filesystem::remove_all(folder_);
  }
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  std::string url() const { return "unix:" + socket(); }
  std::string socket() const { return (folder_ / "redis.sock").string(); }

  void start() {
    pid_ = ::fork();
    if (pid_ == 0) {
      const std::string path = socket();
      if (::freopen("/dev/null", "w", stdout) == nullptr) ::_exit(1);
      ::execl(kRedisBinary, "redis-server", "--port", "0", "--unixsocket", path.c_str(), "--save", "", "--requirepass",
              password_.c_str(), static_cast<char*>(nullptr));
      ::_exit(1);
    }
    for (int i = 0; i < 1000 && !listens(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  void stop() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
    std::filesystem::remove(socket());
  }
  // Connections are taken and never answered.
  void freeze() const { ::kill(pid_, SIGSTOP); }

 private:
  // Its socket's name is there a little earlier.
  bool listens() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket().copy(address.sun_path, sizeof address.sun_path - 1);
    const int connection = ::socket(AF_UNIX, SOCK_STREAM, 0);
    const bool taken = ::connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    ::close(connection);
    return taken;
  }
  static std::string next() {
    static int count = 0;
    return std::to_string(count++);
  }
  std::filesystem::path folder_;
  std::string password_;
  pid_t pid_ = -1;
};

}  // namespace scd::testing
