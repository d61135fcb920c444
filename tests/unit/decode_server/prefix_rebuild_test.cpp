#include "decode_server/rebuild/prefix_rebuild.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>

#include "common/base/crc32c.h"
#include "common/model/make_model.h"

namespace scd {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kChunk = 32;
constexpr int64_t kHandover = 48;  // a whole chunk and half of one

// A payload is one float; keys and values are filled with it.
class FillDecoder final : public Decoder {
 public:
  explicit FillDecoder(int64_t width) : width_(width) { id_.fill(7); }
  const Sha256Digest& encoder_id() const override { return id_; }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override {
    float value = 0;
    if (payload.size() != sizeof value) return Failure{ErrorCode::kDataLoss, "not a float"};
    std::memcpy(&value, payload.data(), sizeof value);
    out.kind = DecodedKind::kKeysValues;
    out.tokens = place.tokens;
    out.keys.assign(static_cast<size_t>(place.tokens * width_), value);
    out.values.assign(out.keys.size(), -value);
    return Done{};
  }
  Result<LayerPlan> plan(int32_t exact_layers) const override { return layer_by_layer(2, exact_layers); }
  size_t max_payload_bytes(int64_t) const override { return sizeof(float); }

 private:
  const int64_t width_;
  Sha256Digest id_{};
};

// A payload is one float; the residual stream before the span grows from it along tokens and values.
class StreamDecoder final : public Decoder {
 public:
  StreamDecoder(int32_t layers, int64_t hidden) : layers_(layers), hidden_(hidden) { id_.fill(7); }
  const Sha256Digest& encoder_id() const override { return id_; }
  Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload, DecodedLayer& out) const override {
    float value = 0;
    std::memcpy(&value, payload.data(), sizeof value);
    out.kind = DecodedKind::kResidual;
    out.tokens = place.tokens;
    out.hidden.resize(static_cast<size_t>(place.tokens * hidden_));
    for (size_t i = 0; i < out.hidden.size(); ++i) out.hidden[i] = std::sin(value + 0.37f * static_cast<float>(i));
    return Done{};
  }
  Result<LayerPlan> plan(int32_t) const override { return LayerPlan{1, {{1, layers_ - 1, true}}}; }
  size_t max_payload_bytes(int64_t) const override { return sizeof(float); }

 private:
  const int32_t layers_;
  const int64_t hidden_;
  Sha256Digest id_{};
};

class DropSink final : public CompletionSink {
  void on_prompt(const PromptInfo&) override {}
  void on_delta(CompletionDelta) override {}
  void on_end(CompletionEnd) override {}
  void on_failure(const Failure&) override {}
};

class PrefixRebuildTest : public ::testing::Test {
 protected:
  PrefixRebuildTest()
      : model_(load()),
        cache_(model_.config().kv_shape(kernels::DType::kF32), 8),
        staging_(4096, 8),
        job_(1, ServingClock::now(), std::make_shared<DropSink>()) {
    job_.pages = cache_.pool().make_table();
    EXPECT_TRUE(job_.pages.reserve(64).ok());
    job_.request.prompt.assign(64, 5);
    fill_cache(0.5f);  // what was computed natively
    auto lease = staging_.open_lease({.key = {1, 1},
                                      .token = {},
                                      .slots = 8,
                                      .on_message = [this](ReceivedMessage message) { arrived_ = std::move(message); },
                                      .on_failure = [](const Failure&) {}});
    lease_ = std::move(lease).value();
  }
  ~PrefixRebuildTest() override { job_.pages.release(); }

  // Keys, and values of the other sign.
  void fill_cache(float key) {
    const auto count = static_cast<size_t>(cache_.shape().kv_width() * 64);
    std::vector<float> keys(count, key), values(count, -key);
    const kernels::SequenceRows rows{job_.pages.page_ids(), 0, 64, 0};
    for (int32_t layer = 0; layer < model_.config().layers; ++layer) {
      kernels::write_kv(cache_.layer(layer), std::span(&rows, 1),
                        kernels::matrix(keys.data(), 64, cache_.shape().kv_width()),
                        kernels::matrix(values.data(), 64, cache_.shape().kv_width()));
    }
  }

  static Model load() {
    const auto directory = std::filesystem::temp_directory_path() / ("scd_rebuild_" + std::to_string(::getpid()));
    make_model({.shape = "tiny", .seed = 1}, directory);
    Model model = Model::load({.directory = directory, .precision = kernels::DType::kF32});
    std::filesystem::remove_all(directory);
    return model;
  }

  PrefixRebuild rebuild(int64_t native_tokens = 0, int32_t first_layer = 1) {
    TransferPlan plan = plan_of(std::make_shared<FillDecoder>(cache_.shape().kv_width()));
    plan.layers = layer_by_layer(model_.config().layers, first_layer);
    return PrefixRebuild({model_, cache_, job_, std::move(plan), native_tokens});
  }

  // Of a span of all layers but the first.
  PrefixRebuild rebuild_span(int64_t native_tokens, int64_t native_rows) {
    const int32_t layers = model_.config().layers;
    TransferPlan plan = plan_of(std::make_shared<StreamDecoder>(layers, model_.config().hidden));
    plan.layers = plan.decoder->plan(1).value();
    return PrefixRebuild({.model = model_,
                          .cache = cache_,
                          .job = job_,
                          .plan = std::move(plan),
                          .native_tokens = native_tokens,
                          .native_rows = native_rows});
  }

  static TransferPlan plan_of(std::shared_ptr<const Decoder> decoder) {
    TransferPlan plan;
    plan.codec.id = CodecId::kRaw;
    plan.encoder_id = decoder->encoder_id();
    plan.decoder = std::move(decoder);
    plan.handover_tokens = kHandover;
    plan.chunk_tokens = kChunk;
    return plan;
  }

  // Returns how often.
  static int run_span(PrefixRebuild& prefix) {
    int layers = 0;
    for (; prefix.running(); ++layers) prefix.run_layer();
    return layers;
  }

  MessageHeader span_header(int64_t first, int64_t count) {
    MessageHeader all = header(1, first, count);
    all.layer_count = static_cast<uint16_t>(model_.config().layers - 1);
    return all;
  }

  std::vector<float> keys_of(int32_t layer) {
    const int64_t width = cache_.shape().kv_width();
    std::vector<float> keys(static_cast<size_t>(width * kHandover)), values(keys.size());
    kernels::read_kv(cache_.layer(layer), {job_.pages.page_ids(), 0, kHandover, 0},
                     kernels::matrix(keys.data(), kHandover, width), kernels::matrix(values.data(), kHandover, width));
    return keys;
  }

  MessageHeader header(int layer, int64_t first, int64_t count) {
    MessageHeader header;
    header.request_id = 1;
    header.generation = 1;
    header.encoder_id.fill(7);
    header.codec_id = static_cast<uint8_t>(CodecId::kRaw);
    header.first_layer = static_cast<uint16_t>(layer);
    header.layer_count = 1;
    header.sequence = sequence_++;
    header.first_token = static_cast<uint32_t>(first);
    header.token_count = static_cast<uint32_t>(count);
    return header;
  }

  const ReceivedMessage& receive(MessageHeader header, float value) {
    header.payload_bytes = sizeof value;
    const auto bytes = std::as_bytes(std::span(&value, 1));
    if (header.payload_crc == 0) header.payload_crc = crc32c(bytes);
    Landing landing;
    EXPECT_EQ(staging_.admit(serialize(header), sizeof value, landing), RejectReason::kNone);
    std::memcpy(landing.target().data(), bytes.data(), bytes.size());
    staging_.deliver(std::move(landing));
    return *arrived_;
  }

  float key_at(int32_t layer, int64_t position) {
    const int64_t width = cache_.shape().kv_width();
    std::vector<float> keys(static_cast<size_t>(width)), values(keys.size());
    kernels::read_kv(cache_.layer(layer), {job_.pages.page_ids(), 0, 1, position},
                     kernels::matrix(keys.data(), 1, width), kernels::matrix(values.data(), 1, width));
    EXPECT_EQ(values[0], -keys[0]);
    return keys[0];
  }

  Model model_;
  KvCache cache_;
  StagingPool staging_;
  DecodeJob job_;
  std::optional<ReceivedMessage> arrived_;
  Lease lease_;
  uint32_t sequence_ = 0;
};

TEST_F(PrefixRebuildTest, a_layer_is_ready_when_all_of_its_chunks_are_written) {
  PrefixRebuild prefix = rebuild();
  EXPECT_TRUE(prefix.layer_ready(0));  // not sent
  EXPECT_FALSE(prefix.layer_ready(1));
  ASSERT_TRUE(prefix.apply(receive(header(1, kChunk, kHandover - kChunk), 2.0f)).ok());
  EXPECT_FALSE(prefix.layer_ready(1));
  ASSERT_TRUE(prefix.apply(receive(header(1, 0, kChunk), 1.0f)).ok());
  EXPECT_TRUE(prefix.layer_ready(1));
  EXPECT_FALSE(prefix.layer_ready(2));
  EXPECT_EQ(key_at(1, 0), 1.0f);
  EXPECT_EQ(key_at(1, kChunk - 1), 1.0f);
  EXPECT_EQ(key_at(1, kChunk), 2.0f);
  EXPECT_EQ(key_at(1, kHandover - 1), 2.0f);
}

TEST_F(PrefixRebuildTest, what_was_computed_natively_is_not_overwritten) {
  PrefixRebuild prefix = rebuild(/*native_tokens=*/5);
  const float before = key_at(1, 4);
  ASSERT_TRUE(prefix.apply(receive(header(1, 0, kChunk), 3.0f)).ok());
  EXPECT_EQ(key_at(1, 4), before);
  EXPECT_EQ(key_at(1, 5), 3.0f);
}

TEST_F(PrefixRebuildTest, chunks_that_are_here_run_through_a_native_span_together) {
  constexpr int64_t kSinks = 5;
  const int span = model_.config().layers - 1;
  PrefixRebuild apart = rebuild_span(kSinks, /*native_rows=*/0);
  ASSERT_TRUE(apart.apply(receive(span_header(0, kChunk), 1.0f)).ok());
  EXPECT_EQ(apart.running_tokens(), kChunk - kSinks);
  EXPECT_FALSE(apart.applicable(receive(span_header(kChunk, kHandover - kChunk), 2.0f)));
  EXPECT_EQ(run_span(apart), span);
  ASSERT_TRUE(apart.apply(*arrived_).ok());
  EXPECT_EQ(run_span(apart), span);
  EXPECT_TRUE(apart.complete());
  const std::vector<float> expected = keys_of(span);

  PrefixRebuild together = rebuild_span(kSinks, kHandover - kSinks);
  ASSERT_TRUE(together.apply(receive(span_header(0, kChunk), 1.0f)).ok());
  ASSERT_TRUE(together.applicable(receive(span_header(kChunk, kHandover - kChunk), 2.0f)));
  ASSERT_TRUE(together.apply(*arrived_).ok());
  EXPECT_EQ(together.running_tokens(), kHandover - kSinks);
  EXPECT_EQ(run_span(together), span);
  EXPECT_TRUE(together.complete());
  const std::vector<float> keys = keys_of(span);
  for (size_t i = 0; i < keys.size(); ++i) ASSERT_NEAR(keys[i], expected[i], 1e-4f + 1e-4f * std::abs(expected[i]));
}

TEST_F(PrefixRebuildTest, a_span_that_has_begun_or_is_full_takes_no_more_along) {
  PrefixRebuild full = rebuild_span(0, /*native_rows=*/kHandover - 1);
  ASSERT_TRUE(full.apply(receive(span_header(0, kChunk), 1.0f)).ok());
  EXPECT_FALSE(full.applicable(receive(span_header(kChunk, kHandover - kChunk), 2.0f)));
  PrefixRebuild begun = rebuild_span(0, kHandover);
  ASSERT_TRUE(begun.apply(receive(span_header(0, kChunk), 1.0f)).ok());
  begun.run_layer();
  EXPECT_FALSE(begun.applicable(receive(span_header(kChunk, kHandover - kChunk), 2.0f)));
  run_span(begun);
  EXPECT_TRUE(begun.applicable(*arrived_));
}

TEST_F(PrefixRebuildTest, refuses_messages_that_are_not_part_of_the_plan) {
  PrefixRebuild prefix = rebuild();
  struct Case {
    std::string says;
    std::function<void(MessageHeader&)> change;
  };
  const std::vector<Case> cases = {
      {"codec", [](auto& h) { h.codec_id = 2; }},     {"encoder", [](auto& h) { h.encoder_id[3] = 0; }},
      {"layer", [](auto& h) { h.first_layer = 0; }},  {"layer", [](auto& h) { h.first_layer = 4; }},
      {"layer", [](auto& h) { h.layer_count = 2; }},  {"chunk", [](auto& h) { h.first_token = 16; }},
      {"chunk", [](auto& h) { h.first_token = 64; }}, {"tokens", [](auto& h) { h.token_count = 16; }},
  };
  for (const Case& each : cases) {
    MessageHeader wrong = header(1, 0, kChunk);
    each.change(wrong);
    const auto applied = prefix.apply(receive(wrong, 9.0f));
    ASSERT_FALSE(applied.ok()) << each.says;
    EXPECT_EQ(applied.failure().code, ErrorCode::kDataLoss);
    EXPECT_THAT(applied.failure().message, HasSubstr(each.says));
    arrived_.reset();
  }
  ASSERT_TRUE(prefix.apply(receive(header(1, 0, kChunk), 1.0f)).ok()) << "a refused one took its place";
  EXPECT_EQ(key_at(1, 0), 1.0f);
}

TEST_F(PrefixRebuildTest, refuses_a_wrong_checksum_and_a_second_copy) {
  PrefixRebuild prefix = rebuild();
  MessageHeader corrupt = header(1, 0, kChunk);
  corrupt.payload_crc = 12345;
  EXPECT_EQ(prefix.apply(receive(corrupt, 9.0f)).failure().code, ErrorCode::kDataLoss);
  ASSERT_TRUE(prefix.apply(receive(header(1, 0, kChunk), 1.0f)).ok());
  EXPECT_THAT(prefix.apply(receive(header(1, 0, kChunk), 9.0f)).failure().message, HasSubstr("already"));
  EXPECT_EQ(key_at(1, 0), 1.0f);
}

}  // namespace
}  // namespace scd
