// The codec interface: a unit of layers (layer_plan.h) of a chunk of tokens -> bytes on the producer, bytes -> those
// layers' keys and values, or what the consumer computes them from, on the consumer. Pure: no threads, no transport, no
// model. Servers, calibrator, eval and fuzzers share it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/byte_buffer.h"
#include "common/base/error.h"
#include "common/base/sha256.h"
#include "common/codec/kept_anchor.h"
#include "common/codec/layer_plan.h"
#include "kernels/grow_buffer.h"
#include "kernels/matrix.h"
#include "kernels/paged_kv.h"
#include "kernels/rope.h"

namespace scd {

// On the wire and in cache keys for ever: the numbers of the protocol's Codec, whose 3 means that nothing is sent.
enum class CodecId : uint8_t {
  kRaw = 1,
  kScd = 2,
  kLossless = 4,
  kInt8 = 5,
  kInt4 = 6,
  kRd = 7,
  kKvtc = 8,
  kDroidSpeak = 9,
  kLoraDelta = 10
};

// What is sent of the calibrated codes. Ranks: 0 is all; a cap is a prefix, because codes are ordered by importance.
struct RankCaps {
  int32_t key = 0;
  int32_t value = 0;
  int32_t hidden = 0;
  int32_t level = 0;    // of Encoder::levels(): quantiser step
  bool packed = false;  // of codecs with levels: symbols in a fixed number of bits, not entropy-coded
  bool operator==(const RankCaps&) const = default;
};

// Which codes are made for a request; part of the code cache's key.
struct CodecChoice {
  CodecId id = CodecId::kRaw;
  RankCaps rank;
  bool operator==(const CodecChoice&) const = default;
};

// What the producer holds of `tokens` consecutive tokens for one unit, [tokens, ...] F32: its layers that the unit's
// source() names. They stand side by side: columns [0, kv_width) are those of the first. Absent where the codec does
// not need it.
struct LayerChunk {
  int32_t layer = 0;  // the unit's first, of the plan
  int64_t first_position = 0;
  kernels::ConstMatrix keys = {};             // [tokens, layers * kv_width], after the producer's RoPE
  kernels::ConstMatrix values = {};           // [tokens, layers * kv_width]
  kernels::ConstMatrix attention_input = {};  // [tokens, hidden] RMS-normalised, of `layer`
  kernels::ConstMatrix residual = {};         // [tokens, hidden] residual stream of residual units
  kernels::ConstMatrix anchor = {};           // [tokens, hidden] residual stream before the unit's anchor layer

  // For an encoder that reads_pages(), instead of keys and values: where they are, and of how many tokens.
  struct Pages {
    std::span<const kernels::PagedKv> layers;
    std::span<const int32_t> page_ids;
    int64_t tokens = 0;
  };
  Pages pages = {};
  KeptAnchor* kept_anchor = nullptr;  // of `anchor`, where its owner keeps one

  int64_t key_value_tokens() const { return pages.layers.empty() ? keys.rows : pages.tokens; }
};

// Tokens [first, first + count) of a chunk.
LayerChunk rows_of(const LayerChunk& chunk, int64_t first, int64_t count);

// Payloads that were begun.
class PendingPayloads {
 public:
  virtual ~PendingPayloads() = default;
  // Whether finish() would not wait.
  virtual bool finished() const = 0;
  // Waits for them: one for each chunk, in order. Once.
  virtual std::vector<ByteBuffer> finish() = 0;
};

class Encoder {
 public:
  virtual ~Encoder() = default;
  // SHA-256 that names this encoder on the wire and in cache keys (without calibration: of the KV shape and RoPE).
  virtual const Sha256Digest& id() const = 0;
  // FAILED_PRECONDITION where it cannot serve a consumer that computes so many first layers itself.
  virtual Result<LayerPlan> plan(int32_t exact_layers) const = 0;
  // The producer's layers that a unit of the plan is coded from; where not said otherwise, its own.
  virtual UnitSource source(const LayerPlan& plan, size_t unit) const {
    return {plan.units[unit].first_layer, plan.units[unit].layers, plan.anchor_of(unit)};
  }
  // Of a layer of the producer.
  virtual bool needs_attention_input(int32_t) const { return false; }
  // encode() is to be given the residual stream before this layer of the producer, as a unit's residual or anchor.
  virtual bool needs_residual(int32_t) const { return false; }
  // Where it works: encode() takes chunks there without bringing them first.
  virtual kernels::Device device() const { return kernels::Device::kCpu; }
  // Chunks may leave keys and values in the pages of a cache on device().
  virtual bool reads_pages() const { return false; }
  // Rates it can code at; level 0 is the finest.
  virtual int32_t levels() const { return 1; }
  // Appends the payload of one unit's chunk to `out`. Deterministic: the same chunk gives the same bytes.
  virtual void encode(const LayerChunk& chunk, const RankCaps& caps, ByteBuffer& out) const = 0;
  // The same for consecutive chunks of so many tokens at once, together all of `rows`. An encoder on a GPU goes on
  // behind the caller's back; ops that the thread queues later may overwrite what `rows` shows.
  virtual std::unique_ptr<PendingPayloads> begin(const LayerChunk& rows, std::span<const int64_t> chunk_tokens,
                                                 const RankCaps& caps) const;
};

enum class DecodedKind : uint8_t { kKeysValues, kAttentionInput, kResidual };

// What came out: keys and values for the consumer's cache; or (Patch) the consumer's predicted attention input, from
// which the rebuild stage computes them with the consumer's own weights; or the consumer's residual stream, from which
// it runs the unit's layers. Layers side by side, as in LayerChunk.
struct DecodedLayer {
  DecodedKind kind = DecodedKind::kKeysValues;
  int64_t tokens = 0;
  std::vector<float> keys;    // [tokens, layers * consumer kv_width], after the consumer's RoPE
  std::vector<float> values;  // [tokens, layers * consumer kv_width]
  std::vector<float> hidden;  // [tokens, consumer hidden]: attention input or residual stream

  // The same from a decoder that works on a GPU: left there, and the vectors are empty.
  struct OnDevice {
    bool present = false;
    kernels::GrowBuffer memory;
    std::shared_ptr<const void> codes;          // of a block that decode() made, where keys and values stand in it
    kernels::ConstMatrix keys, values, hidden;  // F32; keys and values BF16 where they came as that
    // The consumer's, where keys are still before RoPE: whoever writes them rotates them on the way. Null: after it.
    const kernels::RopeTable* rope = nullptr;
  };
  OnDevice on_device;

  kernels::ConstMatrix key_rows() const { return on_device.present ? on_device.keys : rows_of(keys); }
  kernels::ConstMatrix value_rows() const { return on_device.present ? on_device.values : rows_of(values); }
  kernels::ConstMatrix hidden_rows() const { return on_device.present ? on_device.hidden : rows_of(hidden); }

 private:
  kernels::ConstMatrix rows_of(const std::vector<float>& all) const {
    return kernels::matrix(all.data(), tokens, std::ssize(all) / tokens);
  }
};

struct PayloadPlace {
  int32_t layer = 0;  // the unit's first
  int64_t first_position = 0;
  int64_t tokens = 0;
  kernels::ConstMatrix anchor = {};   // [tokens, consumer hidden] F32: the consumer's; where needs_anchor() says so
  KeptAnchor* kept_anchor = nullptr;  // as in LayerChunk
};

struct Payload {
  PayloadPlace place;
  std::span<const std::byte> bytes;
};

// The codes of one or several payloads of a unit, of consecutive tokens.
struct CodeBlock {
  PayloadPlace place;  // without an anchor
  std::shared_ptr<const void> codes;
};

// Payloads that are being read (Decoder::begin_reading). Finished or dropped on its thread, before the decoder goes.
class PendingBlocks {
 public:
  virtual ~PendingBlocks() = default;
  // Whether finish() would not wait.
  virtual bool finished() const = 0;
  // Waits for them. DATA_LOSS names the payload that is not sound. Once.
  virtual Result<std::vector<CodeBlock>> finish() = 0;
};

class Decoder {
 public:
  virtual ~Decoder() = default;
  // The encoder whose payloads it reads.
  virtual const Sha256Digest& encoder_id() const = 0;
  // As of its encoder.
  virtual Result<LayerPlan> plan(int32_t exact_layers) const = 0;
  // How many first layers the consumer has to compute where calibration decided that.
  virtual std::optional<int32_t> calibrated_exact_layers() const { return std::nullopt; }
  // Where it works: anchors are taken there without bringing them first, and what it decodes is left there.
  virtual kernels::Device device() const { return kernels::Device::kCpu; }
  // The residual stream before this layer is an anchor that decode() is to be given.
  virtual bool needs_anchor(int32_t) const { return false; }
  // Untrusted bytes: everything is bounded and checked. DATA_LOSS names what does not fit. `out` is reused storage.
  virtual Result<Done> decode(const PayloadPlace& place, std::span<const std::byte> payload,
                              DecodedLayer& out) const = 0;
  // Decoders that work on many payloads at once (on a GPU) take them before what they are predicted from is there.
  virtual bool reads_ahead() const { return false; }
  // The first half of decode(), which needs no anchor, of all payloads, beside what its thread does meanwhile; the
  // bytes are not needed any more. Payloads whose tokens follow each other share a block. DATA_LOSS as of decode().
  virtual Result<std::unique_ptr<PendingBlocks>> begin_reading(std::span<const Payload> payloads) const;
  // Begins, and waits.
  Result<std::vector<CodeBlock>> read_ahead(std::span<const Payload> payloads) const;
  // The second half; `place` is the block's, and its anchor. What comes out may stand in the block.
  virtual void decode_block(const PayloadPlace& place, const CodeBlock& block, DecodedLayer& out) const;
  // No payload of this many tokens is longer (sizes staging slots).
  virtual size_t max_payload_bytes(int64_t tokens) const = 0;
};

}  // namespace scd
