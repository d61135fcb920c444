#include "common/transport/ucx/socket_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>

#include <array>
#include <cstring>
#include <memory>

namespace scd {
namespace {

struct HostAndPort {
  std::string host;
  std::string port;
};

// "[::1]:7000" -> {"::1", "7000"}; the port is empty when there is none.
HostAndPort split(const std::string& text) {
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string::npos) return {text, ""};
    const bool has_port = end + 1 < text.size() && text[end + 1] == ':';
    return {text.substr(1, end - 1), has_port ? text.substr(end + 2) : ""};
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || text.find(':') != colon) return {text, ""};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

Result<SocketAddress> look_up(const std::string& host, const std::string& port, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return Failure{ErrorCode::kInvalidArgument, "address " + host + ":" + port + ": " + gai_strerror(error)};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  SocketAddress address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  return address;
}

bool is_wildcard(const SocketAddress& address) {
  if (address.storage.ss_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in&>(address.storage).sin_addr.s_addr == htonl(INADDR_ANY);
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_addr;
  return std::memcmp(&v6, &in6addr_any, sizeof v6) == 0;
}

std::string first_host_address() {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return "127.0.0.1";
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(all, freeifaddrs);
  for (const ifaddrs* it = all; it != nullptr; it = it->ifa_next) {
    const bool usable = it->ifa_addr != nullptr && it->ifa_addr->sa_family == AF_INET &&
                        (it->ifa_flags & IFF_UP) != 0 && (it->ifa_flags & IFF_LOOPBACK) == 0;
    if (!usable) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(it->ifa_addr)->sin_addr, text.data(), text.size());
    return text.data();
  }
  return "127.0.0.1";
}

}  // namespace

uint16_t SocketAddress::port() const {
  // The port lies at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in&>(storage).sin_port);
}

std::string SocketAddress::text() const {
  std::array<char, NI_MAXHOST> host{};
  const int error = getnameinfo(reinterpret_cast<const sockaddr*>(&storage), length, host.data(), host.size(), nullptr,
                                0, NI_NUMERICHOST);
  if (error != 0) return "?";
  const std::string name(host.data());
  return (storage.ss_family == AF_INET6 ? "[" + name + "]" : name) + ":" + std::to_string(port());
}

Result<SocketAddress> parse_numeric_address(const std::string& host_and_port) {
  const auto [host, port] = split(host_and_port);
  if (host.empty() || port.empty()) {
    return Failure{ErrorCode::kInvalidArgument, "peer address '" + host_and_port + "' is not of the form host:port"};
  }
  return look_up(host, port, AI_NUMERICHOST);
}

SocketAddress resolve_address(const std::string& host, uint16_t port) {
  return look_up(host, std::to_string(port), 0).value_or_throw();
}

std::string advertised_address(const std::string& advertise, const std::string& listen_host, uint16_t port) {
  const auto [host, own_port] = split(advertise);
  SocketAddress address =
      look_up(host.empty() ? listen_host : host, own_port.empty() ? std::to_string(port) : own_port, 0)
          .value_or_throw();
  if (is_wildcard(address)) address = resolve_address(first_host_address(), address.port());
  return address.text();
}

}  // namespace scd
