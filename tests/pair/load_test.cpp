// Many kinds of requests at once, to two fine-tunes behind one prefill server: each is answered as it is alone, and
// nothing is left behind. SCD_SOAK_SECONDS=600 (scripts/soak) repeats it for so long and watches the memory.
#include <gmock/gmock.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <random>
#include <thread>

#include "common/log/log.h"
#include "common/metrics/registry.h"
#include "pair.h"

namespace scd::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AnyOf;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;  // keeps freed memory
constexpr size_t kRequests = 80;
#else
constexpr bool kSanitized = false;
constexpr size_t kRequests = 500;
#endif
constexpr size_t kClients = 12;
constexpr int kVocabulary = 320;
constexpr float kNarrowMargin = 0.1F;  // nats: below it rounding may choose another token

enum class Kind { kGreedy, kSampled, kStopString, kCancelled, kDeadline };

struct MixedRequest {
  Kind kind = Kind::kGreedy;
  size_t server = 0;
  v1::CompleteRequest request;
  int messages_before_cancel = 0;
  milliseconds deadline{20000};
  // As it is answered alone: tokens up to the first whose margin is narrow.
  std::vector<int32_t> expected;
  std::string stopped_text{};
};

class Mix {
 public:
  explicit Mix(uint32_t seed) : random_(seed) {
    for (auto& prefix : prefixes_) {
      for (int i = 0; i < 160; ++i) prefix.push_back(token());
    }
  }

  MixedRequest draw() {
    static constexpr std::array kKinds{Kind::kGreedy,  Kind::kGreedy,     Kind::kGreedy,    Kind::kGreedy,
                                       Kind::kSampled, Kind::kStopString, Kind::kCancelled, Kind::kDeadline};
    static constexpr std::array kCodecs{v1::CODEC_RAW, v1::CODEC_RAW, v1::CODEC_LOSSLESS, v1::CODEC_INT8,
                                        v1::CODEC_ORACLE};
    MixedRequest mixed;
    mixed.kind = kKinds[below(kKinds.size())];
    mixed.server = below(2);
    v1::CompleteRequest& request = mixed.request;
    if (below(2) == 0) {
      for (const int32_t id : prefixes_[below(prefixes_.size())]) request.mutable_token_ids()->add_ids(id);
    }
    for (size_t left = 20 + below(200); left > 0; --left) request.mutable_token_ids()->add_ids(token());
    const v1::Codec codec = kCodecs[below(kCodecs.size())];
    request.mutable_codec()->mutable_choice()->set_codec(codec);
    // Who asks for a lossy state may find a better one that others left, and answers otherwise than alone.
    const bool exact = codec == v1::CODEC_ORACLE || (mixed.server == 0 && codec != v1::CODEC_INT8);
    request.set_skip_reading_prefix_cache(!exact);
    request.set_max_tokens(static_cast<uint32_t>(4 + below(28)));
    request.set_ignore_eos(true);
    request.set_priority(static_cast<int32_t>(below(3)));
    request.set_temperature(mixed.kind == Kind::kSampled ? 0.8F : 0);
    if (mixed.kind == Kind::kSampled) request.set_seed(below(1000));
    if (mixed.kind == Kind::kCancelled) {
      request.set_max_tokens(400);
      mixed.messages_before_cancel = static_cast<int>(below(4));
    }
    if (mixed.kind == Kind::kDeadline) mixed.deadline = milliseconds(1 + below(40));
    return mixed;
  }

 private:
  size_t below(size_t bound) { return random_() % bound; }
  int32_t token() { return static_cast<int32_t>(3 + below(kVocabulary - 3)); }

  std::mt19937 random_;
  std::array<std::vector<int32_t>, 3> prefixes_;
};

// In use, not what the allocator keeps for later.
size_t heap_bytes() {
  const struct mallinfo2 heap = mallinfo2();
  return heap.uordblks + heap.hblkhd;
}

seconds soak_time() {
  const char* asked = std::getenv("SCD_SOAK_SECONDS");
  return seconds(asked == nullptr ? 0 : std::atoi(asked));
}

// After the first round, and after each tenth of all.
std::string at_tenths(const std::vector<size_t>& bytes) {
  std::string text;
  for (size_t tenth = 0; tenth <= 10; ++tenth) {
    text += (tenth == 0 ? "" : " ") + std::to_string(bytes[tenth * (bytes.size() - 1) / 10] >> 10);
  }
  return text;
}

// The first rounds fill what is bounded: stored codes, leases remembered to know late messages by.
void expect_flat(const std::vector<size_t>& heap) {
  constexpr size_t kSettled = 40;               // rounds
  constexpr size_t kScratch = size_t{2} << 20;  // grows to the largest step that the load happens to make
  if (heap.size() > kSettled) {
    EXPECT_LT(heap.back(), heap[kSettled] + kScratch);
  } else {
    EXPECT_LT(heap.back(), heap.front() + (size_t{16} << 20));
  }
}

class LoadTest : public PairTest {
 protected:
  struct Server {
    std::unique_ptr<DecodeServer> server;
    std::unique_ptr<v1::CompletionService::Stub> stub;
    std::atomic<size_t> asked{0};
  };

  void start_two() {
    configure_log({.level = LogLevel::kError});  // deadlines are meant to pass
    start_prefill([](PrefillConfig& config) {
      config.code_cache.memory_mib = 4;  // it has to forget
      // How much of a prompt comes from the other model, and so the answer, is not to depend on what is stored.
      config.code_cache.max_uncached_tail_tokens = 0;
    });
    for (const std::filesystem::path& model : {base_model(), tuned_model()}) {
      start_decode([&](DecodeConfig& config) {
        config.prefill.remembered_blocks = 512;  // full after the first rounds
        config.model.directory = model;
        config.kv_cache.pages = 64;  // some have to wait, some are suspended
        config.prefix_cache.enabled = true;
        config.limits.max_running = 8;
      });
      servers_[model == base_model() ? 0 : 1].server = std::move(decode_server);
      servers_[model == base_model() ? 0 : 1].stub = std::move(stub);
    }
  }

  // Streams it; cancels after so many messages (none: never).
  StreamedCompletion ask(const MixedRequest& mixed, const std::string& salt) {
    Server& server = servers_[mixed.server];
    server.asked.fetch_add(1, std::memory_order_relaxed);
    v1::CompleteRequest request = mixed.request;
    request.set_cache_salt(salt);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + mixed.deadline);
    const auto reader = server.stub->CompleteStream(&context, request);
    StreamedCompletion result;
    v1::CompleteStreamResponse message;
    while (!(mixed.kind == Kind::kCancelled && result.messages >= mixed.messages_before_cancel) &&
           reader->Read(&message)) {
      ++result.messages;
      if (message.has_finish()) *result.joined.mutable_finish() = message.finish();
      result.joined.mutable_text()->append(message.delta().text());
      result.joined.mutable_token_ids()->MergeFrom(message.delta().token_ids());
      result.joined.mutable_logprobs()->MergeFrom(message.delta().logprobs());
    }
    if (mixed.kind == Kind::kCancelled) context.TryCancel();
    while (reader->Read(&message)) {
    }
    result.status = reader->Finish();
    return result;
  }

  // One by one.
  void learn_answers(std::vector<MixedRequest>& requests) {
    for (MixedRequest& mixed : requests) {
      if (mixed.kind != Kind::kGreedy && mixed.kind != Kind::kStopString) continue;
      MixedRequest alone = mixed;
      alone.request.set_logprobs(2);
      const StreamedCompletion answer = ask(alone, "alone");
      ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
      ASSERT_EQ(answer.joined.finish().transfer().fallback_reason(), "") << "another state answers otherwise";
      ASSERT_EQ(answer.joined.logprobs_size(), answer.joined.token_ids_size());
      for (int i = 0; i < answer.joined.token_ids_size(); ++i) {
        const auto& top = answer.joined.logprobs(i).top();
        if (top.at(0).logprob() - top.at(1).logprob() < kNarrowMargin) break;
        mixed.expected.push_back(answer.joined.token_ids(i));
      }
      compared_tokens_ += mixed.expected.size();
      if (mixed.kind == Kind::kStopString) choose_stop(mixed, answer.joined);
    }
  }

  // A text that the answer holds; where rounding may change it, any answer is right.
  static void choose_stop(MixedRequest& mixed, const v1::CompleteResponse& alone) {
    const std::string& text = alone.text();
    size_t begin = text.size() / 2;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    size_t end = begin + 1;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) ++end;
    if (begin == 0 || end > text.size()) return;
    mixed.request.add_stop(text.substr(begin, end - begin));
    const bool certain = std::ssize(mixed.expected) == alone.token_ids_size();
    if (certain) mixed.stopped_text = text.substr(0, text.find(mixed.request.stop(0)));
  }

  void check(const MixedRequest& mixed, const StreamedCompletion& answer) {
    const grpc::StatusCode code = answer.status.error_code();
    switch (mixed.kind) {
      case Kind::kCancelled:
        EXPECT_THAT(code, AnyOf(grpc::StatusCode::OK, grpc::StatusCode::CANCELLED)) << answer.status.error_message();
        break;
      case Kind::kDeadline:
        EXPECT_THAT(code, AnyOf(grpc::StatusCode::OK, grpc::StatusCode::DEADLINE_EXCEEDED))
            << answer.status.error_message();
        break;
      default: {
        ASSERT_EQ(code, grpc::StatusCode::OK) << answer.status.error_message();
        EXPECT_EQ(answer.joined.finish().transfer().fallback_reason(), "");
        const auto& ids = answer.joined.token_ids();
        if (mixed.kind == Kind::kGreedy) {
          ASSERT_GE(ids.size(), std::ssize(mixed.expected));
          const std::vector<int32_t> same(ids.begin(), ids.begin() + std::ssize(mixed.expected));
          EXPECT_EQ(same, mixed.expected) << "server " << mixed.server << ": " << mixed.request.ShortDebugString()
                                          << "\naccount: " << answer.joined.finish().ShortDebugString();
        }
        if (!mixed.stopped_text.empty()) {
          EXPECT_EQ(answer.joined.text(), mixed.stopped_text);
        }
      }
    }
  }

  // All at once; several clients take them in turns.
  void ask_at_once(const std::vector<MixedRequest>& requests, const std::string& salt) {
    std::atomic<size_t> next{0};
    std::vector<std::jthread> clients;
    for (size_t client = 0; client < kClients; ++client) {
      clients.emplace_back([&] {
        while (true) {
          const size_t i = next.fetch_add(1, std::memory_order_relaxed);
          if (i >= requests.size()) return;
          check(requests[i], ask(requests[i], salt));
        }
      });
    }
  }

  void expect_nothing_held() {
    EXPECT_TRUE(eventually([&] {
      const PrefillCounters held = prefill_servers.front()->counters();
      return servers_[0].server->counters().idle() && servers_[1].server->counters().idle() &&
             held.live_requests == 0 && held.computing == 0 && held.pages_in_use == 0 &&
             held.transport.sends_pending == 0;
    }));
  }

  // Every request has ended in exactly one way.
  void expect_all_counted() {
    for (const Server& server : servers_) {
      double ended = 0;
      for (const MetricSnapshot& metric : server.server->metrics().snapshot()) {
        if (metric.name.name != "scd_requests_total") continue;
        for (const MetricSample& sample : metric.samples) ended += sample.value;
      }
      // What a client gave up before the server saw it has reached nobody.
      EXPECT_LE(ended, static_cast<double>(server.asked.load()));
      EXPECT_GE(ended, 0.8 * static_cast<double>(server.asked.load()));
    }
  }

  std::array<Server, 2> servers_;
  size_t compared_tokens_ = 0;
};

TEST_F(LoadTest, mixed_requests_are_answered_as_alone_and_leave_nothing_behind) {
  SCD_SKIP_ON_GPU();
  start_two();
  Mix mix(20);
  std::vector<MixedRequest> requests;
  while (requests.size() < kRequests) requests.push_back(mix.draw());
  learn_answers(requests);
  EXPECT_GT(compared_tokens_, kRequests) << "enough of the answers has to be certain";
  const auto end = std::chrono::steady_clock::now() + soak_time();
  std::vector<size_t> heap;
  do {
    ask_at_once(requests, "round " + std::to_string(heap.size()));
    expect_nothing_held();
    heap.push_back(heap_bytes());
  } while (!HasFailure() && (heap.size() < 3 || std::chrono::steady_clock::now() < end));
  expect_all_counted();
  RecordProperty("compared_tokens", static_cast<int>(compared_tokens_));
  RecordProperty("rounds", static_cast<int>(heap.size()));
  RecordProperty("heap_kib", at_tenths(heap));
  if (!kSanitized) expect_flat(heap);
}

}  // namespace
}  // namespace scd::testing
