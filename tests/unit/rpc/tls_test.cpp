#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "scd/v1/prefill.grpc.pb.h"

namespace scd {
namespace {

class EmptyInfo : public v1::PrefillService::Service {
  grpc::Status GetProducerInfo(grpc::ServerContext*, const v1::GetProducerInfoRequest*,
                               v1::GetProducerInfoResponse*) override {
    return grpc::Status::OK;
  }
};

// A certificate authority and what it signed, made by the openssl program.
class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("scd_tls_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    const std::string script =
        "cd " + folder_.string() +
        " && exec 2>/dev/null"
        " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem"
        "    -subj /CN=ca -days 2"
        " && for name in server client; do"
        "    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr"
        "      -subj /CN=$name"
        "    && echo subjectAltName=IP:127.0.0.1,DNS:prefill.example.org > $name.ext"
        "    && openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -days 2"
        "      -extfile $name.ext || exit 1; done";
    if (std::system(script.c_str()) != 0) GTEST_SKIP() << "the openssl program is not installed (Debian: openssl)";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  GrpcOptions options(const std::string& name, bool with_ca) const {
    GrpcOptions options;
    if (!name.empty()) {
      options.tls.certificate = folder_ / (name + ".pem");
      options.tls.key = folder_ / (name + ".key");
    }
    if (with_ca) options.tls.ca = folder_ / "ca.pem";
    return options;
  }
  static grpc::StatusCode ask(const std::string& address, const GrpcOptions& with, const std::string& name = {}) {
    const auto stub = v1::PrefillService::NewStub(make_channel(address, with, name));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    v1::GetProducerInfoResponse response;
    return stub->GetProducerInfo(&context, {}, &response).error_code();
  }

  std::filesystem::path folder_;
};

TEST_F(TlsTest, AServerWithACertificateServesClientsThatTrustItsAuthorityOnly) {
  EmptyInfo service;
  const RpcServer server(options("server", false), {{v1::PrefillService::service_full_name(), &service}});
  EXPECT_EQ(ask(server.address(), options("", true)), grpc::StatusCode::OK);
  EXPECT_EQ(ask(server.address(), {}), grpc::StatusCode::UNAVAILABLE) << "no plain text";
}

TEST_F(TlsTest, AnAddressFoundByNameMustShowACertificateOfThatName) {
  EmptyInfo service;
  const RpcServer server(options("server", false), {{v1::PrefillService::service_full_name(), &service}});
  EXPECT_EQ(ask(server.address(), options("", true), "prefill.example.org"), grpc::StatusCode::OK);
  EXPECT_EQ(ask(server.address(), options("", true), "other.example.org"), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TlsTest, AServerWithAnAuthorityRefusesClientsWithoutACertificateOfIt) {
  EmptyInfo service;
  const RpcServer server(options("server", true), {{v1::PrefillService::service_full_name(), &service}});
  EXPECT_EQ(ask(server.address(), options("client", true)), grpc::StatusCode::OK);
  EXPECT_EQ(ask(server.address(), options("", true)), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace scd
