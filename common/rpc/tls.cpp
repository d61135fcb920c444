#include "common/rpc/tls.h"

#include <fstream>
#include <sstream>
#include <string>

#include "common/base/error.h"

namespace scd {
namespace {

std::string read_pem(const std::filesystem::path& file, const char* key) {
  std::ifstream stream(file, std::ios::binary);
  std::stringstream text;
  if (stream) text << stream.rdbuf();
  if (!stream) throw Error(ErrorCode::kNotFound, std::string(key) + ": cannot read " + file.string());
  if (text.str().find("-----BEGIN ") == std::string::npos) {
    throw Error(ErrorCode::kInvalidArgument, std::string(key) + ": " + file.string() + " is not a PEM file");
  }
  return text.str();
}

void check_pair(const TlsOptions& tls) {
  if (tls.certificate.empty() == tls.key.empty()) return;
  throw Error(ErrorCode::kInvalidArgument, "grpc.tls.certificate and grpc.tls.key: set both or neither");
}

}  // namespace

std::shared_ptr<grpc::ServerCredentials> server_credentials(const TlsOptions& tls) {
  check_pair(tls);
  if (!tls.server_enabled()) {
    if (!tls.ca.empty()) {
      throw Error(ErrorCode::kInvalidArgument, "grpc.tls.ca: a server needs grpc.tls.certificate and grpc.tls.key too");
    }
    return grpc::InsecureServerCredentials();
  }
  grpc::SslServerCredentialsOptions options(tls.ca.empty()
                                                ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_key_cert_pairs.push_back(
      {read_pem(tls.key, "grpc.tls.key"), read_pem(tls.certificate, "grpc.tls.certificate")});
  if (!tls.ca.empty()) options.pem_root_certs = read_pem(tls.ca, "grpc.tls.ca");
  return grpc::SslServerCredentials(options);
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const TlsOptions& tls) {
  if (!tls.client_enabled()) return grpc::InsecureChannelCredentials();
  check_pair(tls);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = read_pem(tls.ca, "tls.ca");
  if (!tls.key.empty()) {
    options.pem_private_key = read_pem(tls.key, "tls.key");
    options.pem_cert_chain = read_pem(tls.certificate, "tls.certificate");
  }
  return grpc::SslCredentials(options);
}

}  // namespace scd
