#include "decode_server/receive/discovery.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace scd {
namespace {

constexpr std::chrono::seconds kFirstPatience{1};
constexpr std::chrono::seconds kLeastInterval{1};

std::string port_of(const std::string& endpoint) { return endpoint.substr(endpoint.rfind(':') + 1); }

std::vector<std::string> addresses_of(const addrinfo* found, int family, const std::string& port) {
  std::vector<std::string> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != family) continue;
    char host[NI_MAXHOST];
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, host, sizeof host, nullptr, 0, NI_NUMERICHOST) != 0) continue;
    addresses.push_back((family == AF_INET6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" + port);
  }
  std::ranges::sort(addresses);
  const auto repeated = std::ranges::unique(addresses);
  addresses.erase(repeated.begin(), repeated.end());
  return addresses;
}

}  // namespace

std::string host_of(const std::string& endpoint) {
  const std::string host = endpoint.substr(0, endpoint.rfind(':'));
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

bool is_name(const std::string& endpoint) {
  const std::string host = host_of(endpoint);
  if (host.find(':') != std::string::npos) return false;  // IPv6, perhaps with a zone
  in_addr address;
  return inet_pton(AF_INET, host.c_str(), &address) != 1;
}

Result<std::vector<std::string>> look_up(const std::string& endpoint) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error = getaddrinfo(host_of(endpoint).c_str(), nullptr, &hints, &list);
  if (error != 0) {
    return Failure{ErrorCode::kUnavailable, endpoint + " cannot be looked up: " + gai_strerror(error)};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> found(list, freeaddrinfo);
  std::vector<std::string> addresses = addresses_of(found.get(), AF_INET, port_of(endpoint));
  if (addresses.empty()) addresses = addresses_of(found.get(), AF_INET6, port_of(endpoint));
  if (addresses.empty()) return Failure{ErrorCode::kUnavailable, endpoint + " has no address"};
  return addresses;
}

Discovery::Discovery(Args args) : args_(std::move(args)) {
  if (args_.names.empty()) return;
  thread_ = std::jthread([this] {
    pthread_setname_np(pthread_self(), "discovery");
    run();
  });
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kFirstPatience, [this] { return looked_once_; });
}

Discovery::~Discovery() {
  std::scoped_lock lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

void Discovery::look_soon() {
  std::scoped_lock lock(mutex_);
  soon_ = true;
  changed_.notify_all();
}

void Discovery::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    soon_ = false;
    lock.unlock();
    const auto began = std::chrono::steady_clock::now();
    for (const std::string& name : args_.names) args_.on_result(name, args_.look_up(name));
    lock.lock();
    looked_once_ = true;
    changed_.notify_all();
    changed_.wait_until(lock, began + std::min<std::chrono::milliseconds>(args_.every, kLeastInterval),
                        [this] { return stopping_; });
    changed_.wait_until(lock, began + args_.every, [this] { return stopping_ || soon_; });
  }
}

}  // namespace scd
