#include "prefill_server/server.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <thread>

#include "common/codec/registry.h"
#include "common/model/forward.h"
#include "tests/support/gpu.h"
#include "tests/unit/prefill_server/server_fixture.h"
#include "tests/unit/prefill_server/slow_transport.h"

namespace scd {
namespace {

using testing::Consumer;
using testing::PrefillServerTest;
using testing::prompt;
using testing::Received;
using testing::SendWatch;
using testing::SlowTransport;
using testing::tiny_model;
using namespace std::chrono_literals;

// How far raw codes of whole chunks are apart: what a step holds decides in which order sums are made, so that their
// last bits may differ.
float distance(const Received& a, const Received& b) {
  if (a.payloads.size() != b.payloads.size()) return INFINITY;
  const CodecModel shape{4, 2, 16, 64, ModelConfig::from_directory(tiny_model()).rope};
  const auto decoder = make_decoder(CodecId::kRaw, shape, shape, nullptr);
  float furthest = 0;
  for (const auto& [place, payload] : a.payloads) {
    const auto other = b.payloads.find(place);
    if (other == b.payloads.end()) return INFINITY;
    DecodedLayer ours, theirs;
    const PayloadPlace at{place.first, place.second, 32};
    if (!decoder->decode(at, payload, ours).ok() || !decoder->decode(at, other->second, theirs).ok()) return INFINITY;
    for (size_t i = 0; i < ours.keys.size(); ++i) {
      furthest = std::max({furthest, std::abs(ours.keys[i] - theirs.keys[i]) / (1 + std::abs(ours.keys[i])),
                           std::abs(ours.values[i] - theirs.values[i]) / (1 + std::abs(ours.values[i]))});
    }
  }
  return furthest;
}

TEST_F(PrefillServerTest, TheCodesOfAPromptAreTheKeysAndValuesOfTheModel) {
  serve();
  const std::vector<int32_t> tokens = prompt(150);
  v1::StartPrefill start = consumer_->start(tokens, 144);
  start.set_first_layer(1);
  start.set_skip_tokens(4);
  const Received received = consumer_->receive(start);
  ASSERT_TRUE(received.status.ok()) << received.status.error_message();
  EXPECT_EQ(received.accepted().handover_tokens(), 144U);
  EXPECT_EQ(received.accepted().first_token(), 4U);
  EXPECT_EQ(received.accepted().layers(), 4U);
  ASSERT_EQ(received.payloads.size(), 3U * 5);

  const Model model = Model::load({.directory = tiny_model(), .adapter = {}, .precision = kernels::DType::kF32});
  KvCache cache(model.config().kv_shape(kernels::DType::kF32), 16);
  {
    PageTable pages = cache.pool().make_table();
    ASSERT_TRUE(pages.reserve(150).ok());
    const SequenceChunk all{&pages, 0, tokens};
    forward_last_logits(model, cache, std::span(&all, 1));
    const CodecModel shape{4, 2, 16, 64, model.config().rope};
    const auto decoder = make_decoder(CodecId::kRaw, shape, shape, nullptr);
    for (const auto& [place, payload] : received.payloads) {
      const auto [layer, first] = place;
      const int64_t count = first == 4 ? 28 : (first == 128 ? 16 : 32);
      DecodedLayer decoded;
      ASSERT_TRUE(decoder->decode({layer, first, count}, payload, decoded).ok());
      std::vector<float> keys(static_cast<size_t>(count) * 32), values(keys.size());
      kernels::read_kv(cache.layer(layer), {pages.page_ids(), 0, count, first}, kernels::matrix(keys.data(), count, 32),
                       kernels::matrix(values.data(), count, 32));
      for (size_t i = 0; i < keys.size(); ++i) {
        ASSERT_NEAR(decoded.keys[i], keys[i], 0.02F + 0.01F * std::abs(keys[i])) << layer << " " << first;
        ASSERT_NEAR(decoded.values[i], values[i], 0.02F + 0.01F * std::abs(values[i])) << layer << " " << first;
      }
    }
  }
  EXPECT_TRUE(becomes_idle(5s));
  EXPECT_EQ(server_->counters().requests[0], 1U);
  EXPECT_EQ(received.finished().messages(), 15U);
  EXPECT_GT(received.finished().prefill_us(), 0U);
  EXPECT_GT(received.finished().spans_size(), 15);
}

TEST_F(PrefillServerTest, APromptSeenBeforeIsServedFromItsStoredCodesLayerByLayer) {
  serve();
  const Received first = consumer_->receive(consumer_->start(prompt(96), 96));
  const Received second = consumer_->receive(consumer_->start(prompt(96), 96));
  ASSERT_TRUE(second.status.ok());
  EXPECT_EQ(first.accepted().cached_tokens(), 0U);
  EXPECT_EQ(second.accepted().cached_tokens(), 96U);
  EXPECT_EQ(second.finished().prefill_us(), 0U);
  EXPECT_EQ(first.payloads, second.payloads);
  EXPECT_TRUE(std::is_sorted(second.order.begin(), second.order.end()));
  EXPECT_FALSE(std::is_sorted(first.order.begin(), first.order.end())) << "fresh codes travel chunk by chunk";
}

TEST_F(PrefillServerTest, AnotherQuestionAboutTheSameTextEndsWhereTheStoredCodesEnd) {
  serve();
  consumer_->receive(consumer_->start(prompt(96), 96));
  std::vector<int32_t> other = prompt(112);
  other[100] = 1;
  const Received received = consumer_->receive(consumer_->start(other, 112));
  EXPECT_EQ(received.accepted().handover_tokens(), 96U);
  EXPECT_EQ(received.accepted().cached_tokens(), 96U);
  EXPECT_EQ(received.finished().prefill_us(), 0U);
  // Much more behind the stored codes is computed, and what is stored is not encoded again.
  const Received longer = consumer_->receive(consumer_->start(prompt(160), 160));
  EXPECT_EQ(longer.accepted().handover_tokens(), 160U);
  EXPECT_EQ(longer.accepted().cached_tokens(), 96U);
  EXPECT_EQ(longer.payloads.size(), 5U * 4);
  EXPECT_GT(longer.finished().prefill_us(), 0U);
}

TEST_F(PrefillServerTest, SaltsDoNotShareCodes) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(64), 64);
  start.set_cache_salt("one");
  consumer_->receive(start);
  start = consumer_->start(prompt(64), 64);
  start.set_cache_salt("two");
  EXPECT_EQ(consumer_->receive(start).accepted().cached_tokens(), 0U);
}

TEST_F(PrefillServerTest, ManyPromptsAtOnceAreAllServedThoughTheyDoNotFitTogether) {
  serve();  // 32 pages hold 512 tokens, each prompt takes 320
  std::vector<std::future<Received>> calls;
  for (int32_t i = 0; i < 4; ++i) {
    const v1::StartPrefill start = consumer_->start(prompt(320, i), 320);
    calls.push_back(std::async(std::launch::async, [this, start] { return consumer_->receive(start); }));
  }
  for (auto& call : calls) {
    const Received received = call.get();
    EXPECT_TRUE(received.status.ok()) << received.status.error_message();
    EXPECT_EQ(received.payloads.size(), 40U);
  }
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, PromptsComputedTogetherGiveTheCodesTheyGiveAlone) {
  config_.kv_cache.pages = 256;
  config_.code_cache.memory_mib = 0;
  SendWatch watch(60s, false);
  serve(std::make_unique<SlowTransport>(make_loopback_transport(testing::loopback_options(), network_), watch));
  std::vector<Received> alone;
  for (int32_t i = 0; i < 3; ++i) alone.push_back(consumer_->receive(consumer_->start(prompt(32, i), 32)));
  Received long_alone = consumer_->receive(consumer_->start(prompt(1600, 9), 1600));
  EXPECT_TRUE(becomes_idle(5s));  // a prompt's last step is counted after its codes are here
  const StepCounters before = server_->counters().steps;
  EXPECT_EQ(before.prompts, before.steps);

  // The long one takes many steps; the short ones, which come while its first is held, do not fill theirs, so that the
  // rest of each goes to it.
  watch.hold(true);
  const v1::StartPrefill long_start = consumer_->start(prompt(1600, 9), 1600);
  auto long_call = std::async(std::launch::async, [&] { return consumer_->receive(long_start); });
  ASSERT_TRUE(watch.wait_for_send());
  std::vector<std::future<Received>> short_calls;
  for (int32_t i = 0; i < 3; ++i) {
    short_calls.push_back(std::async(std::launch::async, [this, i] {
      Consumer other(server_->address(), network_);
      return other.receive(other.start(prompt(32, i), 32));
    }));
  }
  while (server_->counters().computing < 4) std::this_thread::yield();
  watch.hold(false);
  for (size_t i = 0; i < 3; ++i) {
    const Received together = short_calls[i].get();
    ASSERT_TRUE(together.status.ok()) << together.status.error_message();
    EXPECT_LT(distance(together, alone[i]), 0.01F);
    EXPECT_GT(distance(together, alone[(i + 1) % 3]), 0.1F);
  }
  EXPECT_LT(distance(long_call.get(), long_alone), 0.01F);
  EXPECT_TRUE(becomes_idle(5s));
  const StepCounters after = server_->counters().steps;
  EXPECT_GT(after.prompts - before.prompts, after.steps - before.steps);
  EXPECT_EQ(after.tokens - before.tokens, 1600U + 3 * 32);
  server_.reset();  // before the watch
}

TEST_F(PrefillServerTest, AShortPromptDoesNotWaitForLongOnes) {
  config_.limits.batch_tokens = 32;
  config_.limits.max_computing = 1;
  config_.kv_cache.pages = 128;
  serve();
  int first_done = 6;
  for (int round = 0; first_done > 3 && round < 5; ++round) {  // a busy machine may ask for the short one too late
    std::atomic<int> long_ones_done{0};
    std::vector<std::unique_ptr<Consumer>> consumers;
    std::vector<std::jthread> calls;
    for (int32_t i = 0; i < 6; ++i) {
      consumers.push_back(std::make_unique<Consumer>(server_->address(), network_));
      v1::StartPrefill start = consumers.back()->start(prompt(1600, 10 * round + i), 1600);
      start.set_request_id(static_cast<uint64_t>(100 + i));
      start.set_transfer_token(std::string(16, static_cast<char>(100 + i)));
      calls.emplace_back([&, start, consumer = consumers.back().get()] {
        EXPECT_TRUE(consumer->receive(start).status.ok());
        ++long_ones_done;
      });
    }
    while (server_->counters().live_requests + static_cast<size_t>(long_ones_done) < 6) std::this_thread::yield();
    EXPECT_TRUE(consumer_->receive(consumer_->start(prompt(32, 90 + round), 32)).status.ok());
    first_done = long_ones_done;
  }
  EXPECT_LE(first_done, 3) << "of six: those that had the only place, or ended before it came";
  EXPECT_TRUE(becomes_idle(5s));
}

TEST_F(PrefillServerTest, TellsWhoItIs) {
  config_.model.name = "base";
  serve();
  grpc::ClientContext context;
  v1::GetProducerInfoResponse info;
  ASSERT_TRUE(consumer_->stub().GetProducerInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.model(), "base");
  EXPECT_EQ(info.layers(), 4U);
  EXPECT_EQ(info.context_length(), 2048U);
  EXPECT_EQ(info.fingerprint().weights().size(), 64U);
  std::vector<v1::Codec> offered;
  for (const v1::OfferedCodec& codec : info.codecs()) {
    offered.push_back(codec.codec());
    EXPECT_EQ(codec.encoder_id().size(), 32U);
  }
  EXPECT_THAT(offered,
              ::testing::UnorderedElementsAre(v1::CODEC_RAW, v1::CODEC_LOSSLESS, v1::CODEC_INT8, v1::CODEC_INT4));
  EXPECT_EQ(info.chunk_tokens(), 32U);
}

TEST_F(PrefillServerTest, TellsHowManyTokensOthersHaveItCompute) {
  serve();
  Consumer::Call running(*consumer_, consumer_->start(prompt(480), 480));
  const auto first = running.event();
  ASSERT_TRUE(first && first->has_accepted());
  EXPECT_EQ(first->accepted().queued_tokens(), 0u);
  EXPECT_EQ(consumer_->receive(consumer_->start(prompt(160), 160)).accepted().queued_tokens(), 480u);
  running.cancel();
  EXPECT_TRUE(becomes_idle(5s));
  EXPECT_EQ(consumer_->receive(consumer_->start(prompt(160), 160)).accepted().queued_tokens(), 0u);
}

TEST_F(PrefillServerTest, DrainingLetsRunningRequestsFinishAndRefusesNewOnes) {
  serve();
  v1::StartPrefill start = consumer_->start(prompt(160), 160);
  Consumer::Call call(*consumer_, start);
  auto message = call.message();
  ASSERT_TRUE(message.has_value());
  auto drained = std::async(std::launch::async, [this] { return server_->drain(20s); });
  grpc::StatusCode refused = grpc::StatusCode::OK;
  while (refused == grpc::StatusCode::OK) {
    refused = consumer_->receive(consumer_->start(prompt(32), 32)).status.error_code();
  }
  EXPECT_EQ(refused, grpc::StatusCode::UNAVAILABLE);
  for (int left = 20; message.has_value(); message = --left > 0 ? call.message() : std::nullopt) {
    const uint32_t sequence = message->header().sequence;
    message.reset();
    call.acknowledge(sequence);
  }
  EXPECT_TRUE(call.end().status.ok());
  EXPECT_EQ(drained.get(), 0U);
}

TEST_F(PrefillServerTest, EndsInMidSendOnceTheComputeThreadLetGoOfTheTransport) {
  for (int i = 0; i < 3; ++i) {
    SendWatch watch;
    serve(std::make_unique<SlowTransport>(make_loopback_transport(testing::loopback_options(), network_), watch));
    Consumer::Call call(*consumer_, consumer_->start(prompt(480, i), 480));
    ASSERT_TRUE(watch.wait_for_send());
    server_.reset();
    EXPECT_FALSE(watch.ended_while_sending);
    EXPECT_FALSE(call.end().status.ok());
  }
}

TEST_F(PrefillServerTest, HurryEndsADrainWithoutLosingPages) {
  serve();
  Consumer::Call call(*consumer_, consumer_->start(prompt(480), 480));
  ASSERT_TRUE(call.message().has_value());
  auto drained = std::async(std::launch::async, [this] { return server_->drain(60s); });
  server_->hurry();
  EXPECT_EQ(call.end().status.error_code(), grpc::StatusCode::UNAVAILABLE);
  drained.get();
  EXPECT_TRUE(becomes_idle(5s));
}

TEST(SendMemoryOfAServer, FollowsWhatMayBeUnsentAndTheCodeCacheUpToABound) {
  PrefillConfig config;
  config.limits.max_unsent_mib = 64;
  config.limits.max_computing = 4;
  config.code_cache.memory_mib = 100;
  EXPECT_EQ(send_memory_mib(config), 4 * 64 + 100);
  config.code_cache.memory_mib = 1 << 20;
  EXPECT_EQ(send_memory_mib(config), 2048U);
}

// Weights, pages and what the warm-up took, and no more of it than was counted beforehand.
TEST_F(PrefillServerTest, AGpuSaysWhatItsMemoryIsFor) {
  SCD_SKIP_WITHOUT_GPU();
  config_.device = "cuda:0";
  config_.model.precision = Precision::kBF16;
  config_.kv_cache.gpu_memory_fraction = 0;
  ::testing::internal::CaptureStderr();
  serve();
  const std::string log = ::testing::internal::GetCapturedStderr();
  const auto number = [&log](const std::string& key) {
    const auto at = log.find(key + "=");
    return at == std::string::npos ? -1 : std::stoi(log.substr(at + key.size() + 1));
  };
  EXPECT_EQ(number("kv_cache_pages"), 32) << log;
  EXPECT_GE(number("workspace_used_mib"), 40) << "cuBLASLt's at least\n" << log;
  const ModelConfig model = ModelConfig::from_directory(tiny_model());
  const size_t counted = workspace_bytes(model, kernels::DType::kBF16, workspace_limits(config_, model));
  EXPECT_EQ(number("workspace_mib"), static_cast<int>(counted >> 20)) << log;
  EXPECT_LE(number("workspace_used_mib"), static_cast<int>(counted >> 20)) << "nothing lies beside it\n" << log;
}

}  // namespace
}  // namespace scd
