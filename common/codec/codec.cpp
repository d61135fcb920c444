#include "common/codec/codec.h"

#include <utility>

#include "common/base/check.h"

namespace scd {
namespace {

class FinishedPayloads final : public PendingPayloads {
 public:
  explicit FinishedPayloads(std::vector<ByteBuffer> payloads) : payloads_(std::move(payloads)) {}
  bool finished() const override { return true; }
  std::vector<ByteBuffer> finish() override { return std::move(payloads_); }

 private:
  std::vector<ByteBuffer> payloads_;
};

}  // namespace

LayerChunk rows_of(const LayerChunk& chunk, int64_t first, int64_t count) {
  LayerChunk part = chunk;
  part.first_position += first;
  part.pages.tokens = count;
  for (kernels::ConstMatrix* rows : {&part.keys, &part.values, &part.attention_input, &part.residual, &part.anchor}) {
    if (rows->data == nullptr) continue;
    rows->data = rows->row<float>(first);
    rows->rows = count;
  }
  return part;
}

std::unique_ptr<PendingPayloads> Encoder::begin(const LayerChunk& rows, std::span<const int64_t> chunk_tokens,
                                                const RankCaps& caps) const {
  std::vector<ByteBuffer> payloads(chunk_tokens.size());
  int64_t first = 0;
  for (size_t i = 0; i < payloads.size(); ++i) {
    encode(rows_of(rows, first, chunk_tokens[i]), caps, payloads[i]);
    first += chunk_tokens[i];
  }
  return std::make_unique<FinishedPayloads>(std::move(payloads));
}

Result<std::unique_ptr<PendingBlocks>> Decoder::begin_reading(std::span<const Payload>) const {
  SCD_CHECK(reads_ahead(), "a decoder that reads ahead");
  return std::unique_ptr<PendingBlocks>{};
}

Result<std::vector<CodeBlock>> Decoder::read_ahead(std::span<const Payload> payloads) const {
  auto pending = begin_reading(payloads);
  if (!pending) return pending.failure();
  return pending.value()->finish();
}

void Decoder::decode_block(const PayloadPlace&, const CodeBlock&, DecodedLayer&) const {
  SCD_CHECK(reads_ahead(), "a decoder that reads ahead");
}

}  // namespace scd
