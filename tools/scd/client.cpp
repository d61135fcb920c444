#include "tools/scd/client.h"

#include <grpcpp/grpcpp.h>

#include <charconv>
#include <fstream>
#include <sstream>
#include <utility>

#include "common/base/error.h"
#include "common/codec/registry.h"

namespace scd {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string read_pem(const std::string& file) {
  if (file.empty()) return {};
  std::ifstream stream(file);
  if (!stream) throw Error(ErrorCode::kNotFound, file + ": cannot be read");
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

std::shared_ptr<grpc::ChannelCredentials> credentials_of(const ClientOptions& options) {
  if (options.ca_file.empty()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials(
      {read_pem(options.ca_file), read_pem(options.key_file), read_pem(options.certificate_file)});
}

}  // namespace

std::unique_ptr<v1::CompletionService::Stub> make_stub(const ClientOptions& options) {
  return v1::CompletionService::NewStub(grpc::CreateChannel(options.server, credentials_of(options)));
}

void throw_if_failed(const grpc::Status& status, const std::string& server) {
  if (status.ok()) return;
  std::string message = status.error_message();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    message += " (is a decode_server listening on " + server + "? start one with: decode_server --config FILE)";
  }
  throw Error(static_cast<ErrorCode>(status.error_code()), message);
}

CompletionClient::CompletionClient(const ClientOptions& options) : options_(options), stub_(make_stub(options)) {}

Completion CompletionClient::complete(const v1::CompleteRequest& request,
                                      const std::function<void(const std::string&)>& on_text) {
  const auto start = Clock::now();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + options_.timeout);
  const auto stream = stub_->CompleteStream(&context, request);
  Completion completion;
  v1::CompleteStreamResponse response;
  while (stream->Read(&response)) {
    switch (response.event_case()) {
      case v1::CompleteStreamResponse::kPrompt: completion.prompt = response.prompt(); break;
      case v1::CompleteStreamResponse::kDelta: {
        const v1::Delta& delta = response.delta();
        if (completion.token_ids.empty()) completion.first_token_ms = milliseconds_since(start);
        completion.text += delta.text();
        completion.token_ids.insert(completion.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
        completion.logprobs.insert(completion.logprobs.end(), delta.logprobs().begin(), delta.logprobs().end());
        if (on_text) on_text(delta.text());
        break;
      }
      case v1::CompleteStreamResponse::kFinish: completion.finish = response.finish(); break;
      case v1::CompleteStreamResponse::EVENT_NOT_SET: break;
    }
  }
  throw_if_failed(stream->Finish(), options_.server);
  completion.total_ms = milliseconds_since(start);
  return completion;
}

v1::GetServerInfoResponse CompletionClient::server_info() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + options_.timeout);
  v1::GetServerInfoResponse response;
  throw_if_failed(stub_->GetServerInfo(&context, {}, &response), options_.server);
  return response;
}

namespace {

// "rd@2" -> {"rd", 2}; without a level, or with a text that is none, level 0 or the whole text as a name.
std::pair<std::string, uint32_t> split_level(const std::string& codec) {
  const size_t at = codec.find('@');
  uint32_t level = 0;
  if (at == std::string::npos) return {codec, level};
  const auto [end, error] = std::from_chars(codec.data() + at + 1, codec.data() + codec.size(), level);
  if (error != std::errc{} || end != codec.data() + codec.size()) return {codec, 0};
  return {codec.substr(0, at), level};
}

}  // namespace

void set_codec(v1::CompleteRequest& request, const std::string& codec) {
  if (codec == "auto") return;
  if (codec == "exact") {
    request.mutable_codec()->set_exact(true);
  } else if (codec == "oracle") {
    request.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_ORACLE);
  } else if (const auto named = split_level(codec); const auto id = codec_from_name(named.first)) {
    request.mutable_codec()->mutable_choice()->set_codec(static_cast<v1::Codec>(*id));
    request.mutable_codec()->mutable_choice()->set_level(named.second);
  } else {
    std::string known;
    for (const CodecId each : all_codecs()) known += ", " + std::string(to_string(each));
    throw Error(ErrorCode::kInvalidArgument, "codec '" + codec + "': expected auto, exact, oracle" + known);
  }
}

std::string codec_name(v1::Codec codec) {
  if (codec == v1::CODEC_ORACLE) return "oracle";
  const auto id = codec_from_number(codec);
  return id ? std::string(to_string(*id)) : "unspecified";
}

nlohmann::ordered_json to_json(const v1::TransferAccount& account) {
  nlohmann::ordered_json timeline = nlohmann::ordered_json::array();
  for (const v1::Span& span : account.timeline()) {
    timeline.push_back(
        {{"part", v1::Part_Name(span.part())}, {"start_us", span.start_us()}, {"end_us", span.end_us()}});
  }
  return {{"codec", codec_name(account.codec())},
          {"wire_bytes", account.wire_bytes()},
          {"wire_messages", account.wire_messages()},
          {"ratio_to_bf16", account.ratio_to_bf16()},
          {"cached_tokens", account.cached_tokens()},
          {"prefix_cached_tokens", account.prefix_cached_tokens()},
          {"handover_tokens", account.handover_tokens()},
          {"queue_ms", account.queue_ms()},
          {"prefill_ms", account.prefill_ms()},
          {"encode_ms", account.encode_ms()},
          {"wire_ms", account.wire_ms()},
          {"rebuild_ms", account.rebuild_ms()},
          {"suffix_ms", account.suffix_ms()},
          {"first_step_ms", account.first_step_ms()},
          {"orchestration_ms", account.orchestration_ms()},
          {"ttft_ms", account.ttft_ms()},
          {"predicted_transfer_ms", account.has_predicted_transfer_ms()
                                        ? nlohmann::ordered_json(account.predicted_transfer_ms())
                                        : nlohmann::ordered_json()},
          {"measured_transfer_ms", account.measured_transfer_ms()},
          {"predicted_first_token_ms", account.has_predicted_first_token_ms()
                                           ? nlohmann::ordered_json(account.predicted_first_token_ms())
                                           : nlohmann::ordered_json()},
          {"predicted_other_way_ms", account.has_predicted_other_way_ms()
                                         ? nlohmann::ordered_json(account.predicted_other_way_ms())
                                         : nlohmann::ordered_json()},
          {"measured_first_token_ms", account.measured_first_token_ms()},
          {"fallback_reason", account.fallback_reason()},
          {"codec_reason", account.codec_reason()},
          {"packed", account.form() == v1::CODE_FORM_PACKED},
          {"prefill_endpoint", account.prefill_endpoint()},
          {"timeline", std::move(timeline)}};
}

nlohmann::ordered_json to_json(const Completion& completion) {
  nlohmann::ordered_json json = {
      {"request_id", completion.prompt.request_id()},
      {"model", completion.prompt.model()},
      {"text", completion.text},
      {"token_ids", completion.token_ids},
      {"finish_reason", completion.finish.reason() == v1::FINISH_REASON_STOP ? "stop" : "length"},
      {"usage",
       {{"prompt_tokens", completion.finish.usage().prompt_tokens()},
        {"completion_tokens", completion.finish.usage().completion_tokens()},
        {"cached_tokens", completion.finish.usage().cached_tokens()}}},
      {"client_first_token_ms", completion.first_token_ms},
      {"client_total_ms", completion.total_ms},
      {"transfer", to_json(completion.finish.transfer())}};
  if (!completion.logprobs.empty()) {
    auto& rows = json["logprobs"] = nlohmann::ordered_json::array();
    for (const v1::TokenLogprobs& token : completion.logprobs) {
      nlohmann::ordered_json top = nlohmann::ordered_json::array();
      for (const v1::TokenLogprob& one : token.top()) {
        top.push_back({{"token_id", one.token_id()}, {"text", one.text()}, {"logprob", one.logprob()}});
      }
      rows.push_back({{"token_id", token.chosen().token_id()},
                      {"text", token.chosen().text()},
                      {"logprob", token.chosen().logprob()},
                      {"top", std::move(top)}});
    }
  }
  return json;
}

}  // namespace scd
