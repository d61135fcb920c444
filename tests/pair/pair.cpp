#include "pair.h"

#include <grpcpp/create_channel.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <random>
#include <thread>

#include "common/log/log.h"
#include "common/model/make_model.h"
#include "common/model/model_config.h"
#include "common/tokenizer/byte_tokenizer.h"

namespace scd::testing {
namespace {

constexpr int kVocabulary = 320;

TransportOptions loopback_options() {
  TransportOptions options;
  options.kind = TransportKind::kLoopback;
  options.slot_bytes = size_t{256} << 10;
  options.slots = 64;
  return options;
}

template <class Done>
bool within(std::chrono::milliseconds limit, Done done) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace

PairTest::PairTest()
    : root_(std::filesystem::temp_directory_path() /
            ("scd_pair_" + std::to_string(::getpid()) + "_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
  std::filesystem::create_directories(root_);
  configure_log({.level = LogLevel::kWarning});
}

PairTest::~PairTest() {
  stub.reset();
  decode_server.reset();
  prefill_servers.clear();
  std::filesystem::remove_all(root_);
}

std::filesystem::path PairTest::make(const std::string& name, const std::string& shape, uint64_t seed, double perturb) {
  const auto directory = root_ / name;
  if (!std::filesystem::exists(directory / "config.json")) {
    make_model({.shape = shape, .seed = seed, .perturb = perturb, .perturb_seed = 7}, directory);
    std::ofstream(directory / "tokenizer.json")
        << make_byte_tokenizer_json(ModelConfig::from_directory(directory).vocab);
  }
  return directory;
}

std::filesystem::path PairTest::base_model() { return make("base", "tiny", 1, 0); }
std::filesystem::path PairTest::tuned_model() { return make("tuned", "tiny", 1, 0.3); }

PrefillConfig PairTest::prefill_config() {
  PrefillConfig config;
  config.model.directory = base_model();
  config.model.precision = Precision::kBF16;                                        // on every CPU: raw codes are exact
  if (const char* device = std::getenv("SCD_TEST_DEVICE")) config.device = device;  // cuda:0 where a GPU is
  config.kv_cache = {.pages = 512, .gpu_memory_fraction = 0};
  config.codec.chunk_tokens = 64;
  config.grpc.listen = "127.0.0.1:0";
  config.threads = 1;
  return config;
}

DecodeConfig PairTest::decode_config() {
  DecodeConfig config;
  config.model.directory = base_model();
  config.model.precision = Precision::kBF16;                                        // on every CPU: raw codes are exact
  if (const char* device = std::getenv("SCD_TEST_DEVICE")) config.device = device;  // cuda:0 where a GPU is
  config.kv_cache = {.pages = 1024, .gpu_memory_fraction = 0};
  config.codec.mode = CodecMode::kRaw;  // whatever this machine's load makes of the link
  config.prefix_cache.enabled = false;  // tests ask the same again to see it transferred again
  config.codec.sinks = 16;
  config.codec.suffix_tokens = 16;
  config.prefill.credit_messages = 4;
  config.prefill.local = LocalPrefill::kOff;  // however slow this machine is
  config.limits.recorded_batch = 1;           // on a GPU that is emulated, a start would take long
  config.grpc.listen = "127.0.0.1:0";
  config.threads = 1;
  config.prefill.endpoints.clear();
  for (const auto& server : prefill_servers) config.prefill.endpoints.push_back(server->address());
  return config;
}

void PairTest::start_prefill(const ChangePrefill& change) {
  PrefillConfig config = prefill_config();
  config.transport = loopback_options();
  if (change) change(config);
  prefill_servers.push_back(
      std::make_unique<PrefillServer>(config, make_loopback_transport(config.transport, network)));
}

void PairTest::start_decode(const ChangeDecode& change) {
  DecodeConfig config = decode_config();
  config.transport = loopback_options();
  if (change) change(config);
  decode_server = std::make_unique<DecodeServer>(config, make_loopback_transport(config.transport, network));
  stub =
      v1::CompletionService::NewStub(grpc::CreateChannel(decode_server->address(), grpc::InsecureChannelCredentials()));
}

void PairTest::start(const ChangeDecode& change) {
  start_prefill();
  start_decode(change);
}

grpc::Status PairTest::complete(const v1::CompleteRequest& request, v1::CompleteResponse& response,
                                std::chrono::milliseconds timeout) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  return stub->Complete(&context, request, &response);
}

v1::CompleteResponse PairTest::complete(const v1::CompleteRequest& request) {
  v1::CompleteResponse response;
  const grpc::Status status = complete(request, response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

v1::CompleteResponse PairTest::complete_alone(v1::CompleteRequest request) {
  request.mutable_codec()->mutable_choice()->set_codec(v1::CODEC_ORACLE);
  return complete(request);
}

StreamedCompletion PairTest::stream(const v1::CompleteRequest& request) {
  StreamedCompletion result;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = stub->CompleteStream(&context, request);
  v1::CompleteStreamResponse message;
  while (reader->Read(&message)) {
    ++result.messages;
    if (message.has_prompt()) result.prompt = message.prompt();
    if (message.has_finish()) *result.joined.mutable_finish() = message.finish();
    if (!message.has_delta()) continue;
    result.joined.mutable_text()->append(message.delta().text());
    result.joined.mutable_token_ids()->MergeFrom(message.delta().token_ids());
    result.joined.mutable_logprobs()->MergeFrom(message.delta().logprobs());
  }
  result.status = reader->Finish();
  return result;
}

bool PairTest::wait_for_lease() {
  return eventually([this] { return decode_server->counters().live_leases > 0; });
}

bool PairTest::eventually(const std::function<bool()>& condition) { return within(kPatience, condition); }

bool PairTest::idle() const {
  return decode_server->counters().idle() && std::ranges::all_of(prefill_servers, [](const auto& server) {
           const PrefillCounters held = server->counters();
           return held.live_requests == 0 && held.computing == 0 && held.pages_in_use == 0;
         });
}

std::chrono::steady_clock::duration PairTest::time_until_idle() const {
  const auto from = std::chrono::steady_clock::now();
  EXPECT_TRUE(within(std::chrono::seconds(10), [this] { return idle(); }));
  return std::chrono::steady_clock::now() - from;
}

void PairTest::expect_idle() {
  EXPECT_TRUE(within(std::chrono::seconds(2), [this] { return idle(); }));
  const ServerCounters counters = decode_server->counters();
  EXPECT_EQ(counters.running, 0);
  EXPECT_EQ(counters.transfers, 0);
  EXPECT_EQ(counters.prefill_streams, 0);
  EXPECT_EQ(counters.pages_in_use, 0);
  EXPECT_EQ(counters.live_leases, 0u);
  EXPECT_EQ(counters.slots_in_use, 0u);
  for (const auto& server : prefill_servers) {
    const PrefillCounters held = server->counters();
    EXPECT_EQ(held.live_requests, 0u);
    EXPECT_EQ(held.computing, 0u);
    EXPECT_EQ(held.pages_in_use, 0);
  }
}

v1::CompleteRequest greedy_request(int tokens, uint32_t seed) {
  v1::CompleteRequest request;
  std::mt19937 random(seed);
  for (int i = 0; i < tokens; ++i) {
    request.mutable_token_ids()->add_ids(static_cast<int32_t>(3 + random() % (kVocabulary - 3)));
  }
  request.set_max_tokens(12);
  request.set_temperature(0);
  request.set_ignore_eos(true);
  return request;
}

}  // namespace scd::testing
