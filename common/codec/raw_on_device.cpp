#include "common/codec/raw_on_device.h"

#include <numeric>
#include <utility>
#include <vector>

#include "common/base/check.h"
#include "common/codec/block_memory.h"
#include "common/codec/block_runs.h"
#include "common/codec/raw_body.h"
#include "common/codec/reused.h"
#include "kernels/paged_kv.h"
#include "kernels/side_copy.h"

namespace scd {
namespace {

constexpr auto kDevice = kernels::Device::kGpu;

using DeviceMemory = std::shared_ptr<const kernels::DeviceBuffer>;

// Keys of all tokens, then their values: rows of BF16.
struct Rows {
  DeviceMemory memory;  // may hold others, too
  kernels::Matrix both;

  kernels::Matrix keys() const { return kernels::rows_of(both, 0, both.rows / 2); }
  kernels::Matrix values() const { return kernels::rows_of(both, both.rows / 2, both.rows / 2); }
};

size_t bytes_of(int64_t rows, int64_t width) { return static_cast<size_t>(rows * width) * sizeof(kernels::BFloat16); }

Rows rows_at(std::byte* first, DeviceMemory memory, int64_t tokens, int64_t width) {
  return {std::move(memory), {first, 2 * tokens, width, width, kernels::DType::kBF16, kDevice}};
}

// Rows on their way to the host.
class CopiedPayloads final : public PendingPayloads {
 public:
  CopiedPayloads(const LayerChunk& chunk, std::span<const int64_t> chunk_tokens, int64_t width)
      : width_(width),
        chunk_tokens_(chunk_tokens.begin(), chunk_tokens.end()),
        tokens_(chunk.pages.tokens),
        memory_(block_memory(bytes_of(2 * tokens_, width))),
        copy_(reused<kernels::SideCopy>(bytes_of(2 * tokens_, width))),
        here_(copy_->host(bytes_of(2 * tokens_, width))) {
    const Rows rows = rows_at(memory_->data(), memory_, tokens_, width);
    kernels::read_kv(chunk.pages.layers.front(), {chunk.pages.page_ids, 0, tokens_, chunk.first_position}, rows.keys(),
                     rows.values());
    copy_->from_device(memory_->data());
  }
  CopiedPayloads(const CopiedPayloads&) = delete;
  CopiedPayloads& operator=(const CopiedPayloads&) = delete;
  ~CopiedPayloads() override { copy_->abandon(); }  // the memory is used again as soon as it is free

  bool finished() const override { return copy_->finished(); }

  std::vector<ByteBuffer> finish() override {
    copy_->wait();
    std::vector<ByteBuffer> payloads(chunk_tokens_.size());
    std::vector<int64_t> firsts(chunk_tokens_.size());
    std::exclusive_scan(chunk_tokens_.begin(), chunk_tokens_.end(), firsts.begin(), int64_t{0});
    for (size_t i = 0; i < payloads.size(); ++i) {
      payloads[i].reserve(kPayloadHeaderBytes + bytes_of(2 * chunk_tokens_[i], width_));
      append_payload_header({PayloadKind::kRaw, static_cast<uint16_t>(chunk_tokens_[i])}, payloads[i]);
    }
    const std::byte* const values = here_ + bytes_of(tokens_, width_);
#pragma omp parallel for schedule(dynamic) if (payloads.size() > 1)
    for (size_t i = 0; i < payloads.size(); ++i) {
      const size_t first = bytes_of(firsts[i], width_), end = first + bytes_of(chunk_tokens_[i], width_);
      payloads[i].insert(payloads[i].end(), here_ + first, here_ + end);
      payloads[i].insert(payloads[i].end(), values + first, values + end);
    }
    return payloads;
  }

 private:
  const int64_t width_;
  const std::vector<int64_t> chunk_tokens_;
  const int64_t tokens_;
  const DeviceMemory memory_;
  const std::shared_ptr<kernels::SideCopy> copy_;
  const std::byte* const here_;
};

// Rows on their way to the GPU.
class CopiedBlocks final : public PendingBlocks {
 public:
  CopiedBlocks(std::span<const Payload> payloads, int64_t width)
      : bytes_(
            std::transform_reduce(payloads.begin(), payloads.end(), size_t{0}, std::plus{},
                                  [&](const Payload& payload) { return bytes_of(2 * payload.place.tokens, width); })),
        memory_(block_memory(bytes_)),
        copy_(reused<kernels::SideCopy>(bytes_)),
        here_(copy_->host(bytes_)),
        keys_(payloads.size()),
        values_(payloads.size()) {
    const auto any = [](size_t, size_t) { return true; };
    size_t next = 0;
    for (const BlockRun& run : block_runs(payloads, kMaxPayloadTokens, any)) {
      auto rows = std::make_shared<Rows>(rows_at(memory_->data() + next, memory_, run.tokens, width));
      blocks_.push_back({place_of(run, payloads), std::move(rows)});
      for (const size_t i : run.payloads) {
        keys_[i] = here_ + next;
        values_[i] = keys_[i] + bytes_of(run.tokens, width);
        next += bytes_of(payloads[i].place.tokens, width);
      }
      next += bytes_of(run.tokens, width);
    }
  }
  CopiedBlocks(const CopiedBlocks&) = delete;
  CopiedBlocks& operator=(const CopiedBlocks&) = delete;
  ~CopiedBlocks() override { copy_->abandon(); }  // the memory is used again as soon as it is free

  // The body's length is right. False where a value is not finite.
  bool put(size_t payload, std::span<const std::byte> body) {
    const size_t half = body.size() / 2;
    const bool keys_finite = copy_bf16(body.first(half), keys_[payload]);
    const bool values_finite = copy_bf16(body.subspan(half), values_[payload]);
    return keys_finite && values_finite;
  }
  void start() { copy_->to_device(memory_->data()); }

  bool finished() const override { return copy_->finished(); }
  Result<std::vector<CodeBlock>> finish() override {
    copy_->wait();
    return std::move(blocks_);
  }

 private:
  const size_t bytes_;
  const DeviceMemory memory_;
  const std::shared_ptr<kernels::SideCopy> copy_;
  std::byte* const here_;
  std::vector<std::byte*> keys_, values_;  // by payload: where its rows go
  std::vector<CodeBlock> blocks_;
};

kernels::ConstMatrix on_host(const kernels::ConstMatrix& rows, kernels::GrowBuffer& memory) {
  if (rows.device == kernels::Device::kCpu) return rows;
  const kernels::Matrix here = memory.matrix(rows.rows, rows.columns);
  kernels::copy(rows, here);
  return here;
}

}  // namespace

RawEncoderOnDevice::RawEncoderOnDevice(const CodecModel& producer)
    : PlainEncoder(std::make_unique<RawBody>(producer.kv_width()), producer) {}

void RawEncoderOnDevice::encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const {
  if (chunk.pages.layers.empty()) {
    kernels::GrowBuffer keys_memory, values_memory;
    LayerChunk here = chunk;
    here.keys = on_host(chunk.keys, keys_memory);
    here.values = on_host(chunk.values, values_memory);
    return PlainEncoder::encode(here, caps, out);
  }
  const ByteBuffer payload = std::move(begin(chunk, std::span(&chunk.pages.tokens, 1), caps)->finish().front());
  out.insert(out.end(), payload.begin(), payload.end());
}

std::unique_ptr<PendingPayloads> RawEncoderOnDevice::begin(const LayerChunk& rows,
                                                           std::span<const int64_t> chunk_tokens,
                                                           const RankCaps& caps) const {
  if (rows.pages.layers.empty()) return Encoder::begin(rows, chunk_tokens, caps);
  for (const int64_t tokens : chunk_tokens) {
    SCD_CHECK(tokens >= 1 && tokens <= kMaxPayloadTokens, "tokens of a chunk");
  }
  SCD_CHECK(std::reduce(chunk_tokens.begin(), chunk_tokens.end()) == rows.pages.tokens, "chunks of all tokens");
  return std::make_unique<CopiedPayloads>(rows, chunk_tokens, kv_width());
}

RawDecoderOnDevice::RawDecoderOnDevice(const CodecModel& producer, const CodecModel& consumer)
    : PlainDecoder(std::make_unique<RawBody>(producer.kv_width()), producer, consumer) {
  SCD_CHECK(producer.rope == consumer.rope, "models that rotate keys alike");
}

Result<Done> RawDecoderOnDevice::decode(const PayloadPlace& place, std::span<const std::byte> payload,
                                        DecodedLayer& out) const {
  const Payload one{place, payload};
  const auto blocks = read_ahead({&one, 1});
  if (!blocks) return blocks.failure();
  decode_block(place, blocks.value().front(), out);
  out.on_device.codes = blocks.value().front().codes;
  return Done{};
}

Result<std::unique_ptr<PendingBlocks>> RawDecoderOnDevice::begin_reading(std::span<const Payload> payloads) const {
  std::vector<std::span<const std::byte>> bodies;
  for (const Payload& payload : payloads) {
    const auto body = body_of(payload.place, payload.bytes);
    if (!body) return body.failure();
    const size_t expected = bytes_of(2 * payload.place.tokens, kv_width());
    if (body.value().size() != expected) {
      return payload_failure(payload.place, wrong_length(body.value().size(), expected));
    }
    bodies.push_back(body.value());
  }
  auto blocks = std::make_unique<CopiedBlocks>(payloads, kv_width());
  std::vector<uint8_t> finite(bodies.size());
#pragma omp parallel for schedule(dynamic) if (bodies.size() > 1)
  for (size_t i = 0; i < bodies.size(); ++i) finite[i] = blocks->put(i, bodies[i]) ? 1 : 0;
  for (size_t i = 0; i < bodies.size(); ++i) {
    if (finite[i] == 0) return payload_failure(payloads[i].place, kNotFinite);
  }
  blocks->start();
  return std::unique_ptr<PendingBlocks>(std::move(blocks));
}

void RawDecoderOnDevice::decode_block(const PayloadPlace& place, const CodeBlock& block, DecodedLayer& out) const {
  const Rows& rows = *static_cast<const Rows*>(block.codes.get());
  out.kind = DecodedKind::kKeysValues;
  out.tokens = place.tokens;
  out.keys.clear();
  out.values.clear();
  out.hidden.clear();
  out.on_device.present = true;
  out.on_device.rope = nullptr;
  out.on_device.keys = rows.keys();
  out.on_device.values = rows.values();
}

}  // namespace scd
