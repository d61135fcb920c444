// A client of the completion service: what complete and bench share.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "scd/v1/completion.grpc.pb.h"

namespace scd {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";      // host:port of a decode server
  std::string ca_file;                         // PEM of the authority to trust; empty: no TLS
  std::string certificate_file;                // PEM, for mutual TLS
  std::string key_file;                        // PEM, for mutual TLS
  std::chrono::milliseconds timeout{120'000};  // of one request, connecting included
};

// Everything a stream brought.
struct Completion {
  v1::PromptInfo prompt;
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<v1::TokenLogprobs> logprobs;
  v1::Finish finish;
  double first_token_ms = 0;  // as the client saw it
  double total_ms = 0;
};

// A channel to the server, opened when it is first used.
std::unique_ptr<v1::CompletionService::Stub> make_stub(const ClientOptions& options);
// Throws Error with the status' code and, for an unreachable server, what to check.
void throw_if_failed(const grpc::Status& status, const std::string& server);

class CompletionClient {
 public:
  explicit CompletionClient(const ClientOptions& options);

  // Runs one streaming request; `on_text` sees each piece as it comes. A failed RPC throws Error with its code and, for
  // an unreachable server, what to check.
  Completion complete(const v1::CompleteRequest& request,
                      const std::function<void(const std::string&)>& on_text = nullptr);
  v1::GetServerInfoResponse server_info();

 private:
  ClientOptions options_;
  std::unique_ptr<v1::CompletionService::Stub> stub_;
};

// "oracle" or a codec by name ("rd@2": level 2) -> that choice; "exact" -> the exact override; "auto" leaves the
// server's configuration. Throws Error naming what is allowed.
void set_codec(v1::CompleteRequest& request, const std::string& codec);
std::string codec_name(v1::Codec codec);

nlohmann::ordered_json to_json(const v1::TransferAccount& account);
nlohmann::ordered_json to_json(const Completion& completion);

}  // namespace scd
