// A server that speaks Redis' protocol and answers as a test tells it to; on a port the kernel chose.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace scd::testing {

class FakeRedis {
 public:
  // To the words of each command the bytes of its answer. Empty: the connection is closed.
  using Script = std::function<std::string(const std::vector<std::string>&)>;

  explicit FakeRedis(Script script) : script_(std::move(script)), listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 16);
    socklen_t length = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~FakeRedis() {
    ::shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    for (const int connection : connections_) ::shutdown(connection, SHUT_RDWR);
    for (std::thread& server : servers_) server.join();
    for (const int connection : connections_) ::close(connection);
    ::close(listener_);
  }
  FakeRedis(const FakeRedis&) = delete;
  FakeRedis& operator=(const FakeRedis&) = delete;

  int port() const { return port_; }
  std::string url() const { return "redis://127.0.0.1:" + std::to_string(port_); }
  std::vector<std::vector<std::string>> commands() const {
    std::scoped_lock lock(mutex_);
    return commands_;
  }

 private:
  void accept_all() {
    for (int connection = 0; (connection = ::accept(listener_, nullptr, nullptr)) >= 0;) {
      connections_.push_back(connection);
      servers_.emplace_back([this, connection] { serve(connection); });
    }
  }
  void serve(int connection) {
    std::string bytes;
    while (true) {
      const std::vector<std::string> words = read_command(connection, bytes);
      if (words.empty()) return;
      {
        std::scoped_lock lock(mutex_);
        commands_.push_back(words);
      }
      const std::string answer = script_(words);
      if (answer.empty()) {
        ::shutdown(connection, SHUT_RDWR);
        return;
      }
      for (size_t sent = 0; sent < answer.size();) {
        const ssize_t count = ::send(connection, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
        if (count <= 0) return;
        sent += static_cast<size_t>(count);
      }
    }
  }
  // None where the other side has closed the connection. "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
  static std::vector<std::string> read_command(int connection, std::string& bytes) {
    std::vector<std::string> words;
    size_t expected = 0;
    for (bool first = true; first || words.size() < expected; first = false) {
      const std::string head = read_line(connection, bytes);
      if (head.empty()) return {};
      const size_t number = std::stoul(head.substr(1));
      if (first) {
        expected = number;
        continue;
      }
      while (bytes.size() < number + 2) {
        if (!read_more(connection, bytes)) return {};
      }
      words.push_back(bytes.substr(0, number));
      bytes.erase(0, number + 2);
    }
    return words;
  }
  static std::string read_line(int connection, std::string& bytes) {
    while (bytes.find("\r\n") == std::string::npos) {
      if (!read_more(connection, bytes)) return {};
    }
    const size_t end = bytes.find("\r\n");
    std::string line = bytes.substr(0, end);
    bytes.erase(0, end + 2);
    return line;
  }
  static bool read_more(int connection, std::string& bytes) {
    char some[4096];
    const ssize_t count = ::recv(connection, some, sizeof some, 0);
    if (count > 0) bytes.append(some, static_cast<size_t>(count));
    return count > 0;
  }

  const Script script_;
  const int listener_;
  int port_ = 0;
  mutable std::mutex mutex_;  // guards commands_
  std::vector<std::vector<std::string>> commands_;
  std::vector<int> connections_;  // the acceptor's, until it ends
  std::vector<std::thread> servers_;
  std::thread acceptor_;
};

}  // namespace scd::testing
