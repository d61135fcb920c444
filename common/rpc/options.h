// What a user sets about the gRPC side; common/config describes it in YAML under `grpc`.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

namespace scd {

// PEM files. For a server: certificate and key switch TLS on, a CA besides demands client certificates signed by it.
// For a client: a CA switches TLS on, certificate and key besides identify the client.
struct TlsOptions {
  std::filesystem::path certificate = {};
  std::filesystem::path key = {};
  std::filesystem::path ca = {};

  bool server_enabled() const { return !certificate.empty() || !key.empty(); }
  bool client_enabled() const { return !ca.empty(); }
};

struct GrpcOptions {
  std::string listen = "127.0.0.1:0";  // host:port; port 0 lets the kernel choose
  TlsOptions tls = {};
  // Pings on idle connections, and how long an answer may take.
  std::chrono::milliseconds keepalive{10000};
  std::chrono::milliseconds keepalive_timeout{5000};
  // Longest message accepted.
  int64_t max_message_bytes = int64_t{16} << 20;
};

}  // namespace scd
