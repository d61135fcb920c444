// Input: one byte chooses the reader, then what it reads. A message header, or a payload with the place it claims.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "common/codec/droidspeak_codec.h"
#include "common/codec/lora_delta_codec.h"
#include "common/codec/payload.h"
#include "common/codec/rd/rd_codec.h"
#include "common/codec/registry.h"
#include "common/codec/scd_codec.h"
#include "common/transport/message.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/codec/baseline_samples.h"
#include "tests/unit/codec/codec_samples.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd::fuzz {
namespace {

enum Reader : uint8_t {
  kMessageHeader,
  kRawDecoder,
  kRotatingRawDecoder,
  kScdDecoder,
  kLosslessDecoder,
  kInt8Decoder,
  kInt4Decoder,
  kRdDecoder,
  kDroidSpeakDecoder,
  kLoraDeltaDecoder,
  kReaders
};
constexpr size_t kPlaceBytes = 10;  // layer u16, first position u32, tokens u32
constexpr uint64_t kPayloadLimit = uint64_t{1} << 20;

struct Codecs {
  CodecModel model = testing::small_model();
  ScdEncoder scd_encoder{model, testing::sample_encoder_layers(model), {}};
  std::unique_ptr<Decoder> raw = make_decoder(CodecId::kRaw, model, model, nullptr);
  std::unique_ptr<Decoder> rotating = make_decoder(CodecId::kRaw, model, testing::small_model(1000000.0), nullptr);
  std::unique_ptr<Decoder> lossless = make_decoder(CodecId::kLossless, model, model, nullptr);
  std::unique_ptr<Decoder> int8 = make_decoder(CodecId::kInt8, model, model, nullptr);
  testing::RdSample rd_sample = testing::sample_rd(model, {1, {{1, 1}, {2, 1, true}}}, {0.02f, 0.2f, 1.0f});
  RdEncoder rd_encoder{model, rd_sample.encoder, {}};
  RdDecoder rd{model, rd_sample.decoder, {}};
  std::unique_ptr<Decoder> int4 = make_decoder(CodecId::kInt4, model, model, nullptr);
  DroidSpeakEncoder droidspeak_encoder{model, testing::sample_droidspeak_plan(), {}};
  DroidSpeakDecoder droidspeak{model, model, testing::sample_droidspeak_plan(), {}};
  testing::LoraSample lora = testing::sample_lora(model);
  LoraDeltaEncoder lora_encoder{model, lora.down, {}};
  LoraDeltaDecoder lora_delta{model, testing::small_model(1000000.0), lora.up, {}};
  ScdDecoder scd{model, testing::sample_decoder_layers(model), {}};
};

const Codecs& codecs() {
  static const Codecs all;
  return all;
}

template <class Integer>
Integer read_integer(std::span<const std::byte> bytes, size_t at) {
  Integer value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class Integer>
void append(Integer value, std::vector<uint8_t>& out) {
  for (size_t i = 0; i < sizeof value; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

void require(bool condition) {
  if (!condition) std::abort();
}

void read_message(std::span<const std::byte> bytes) {
  MessageHeader header;
  const RejectReason reason = read_header(bytes, kPayloadLimit, header);
  const auto parsed = parse(bytes, kPayloadLimit);
  require(parsed.ok() == (reason == RejectReason::kNone));
  if (!parsed) return;
  require(header.payload_bytes <= kPayloadLimit);
  // What was accepted is written back as it came.
  const HeaderBytes again = serialize(header);
  require(std::equal(again.begin(), again.end(), bytes.begin()));
}

void read_payload(const Decoder& decoder, std::span<const std::byte> bytes) {
  if (bytes.size() < kPlaceBytes) return;
  static const DenseMatrix anchor(kMaxPayloadTokens, codecs().model.hidden);
  const int64_t tokens_there = read_integer<uint32_t>(bytes, 6);
  const PayloadPlace place{read_integer<uint16_t>(bytes, 0), read_integer<uint32_t>(bytes, 2), tokens_there,
                           anchor.top(std::min(tokens_there, kMaxPayloadTokens))};
  static DecodedLayer out;
  const auto payload = bytes.subspan(kPlaceBytes);
  const auto result = decoder.decode(place, payload, out);
  if (!result) {
    require(result.failure().code == ErrorCode::kDataLoss);
    return;
  }
  require(payload.size() <= decoder.max_payload_bytes(place.tokens));
  require(out.tokens == place.tokens);
  const auto tokens = static_cast<size_t>(place.tokens);
  if (out.kind != DecodedKind::kKeysValues) {
    require(out.hidden.size() == tokens * static_cast<size_t>(codecs().model.hidden));
  } else {
    require(out.keys.size() == tokens * static_cast<size_t>(codecs().model.kv_width()));
    require(out.values.size() == out.keys.size());
  }
}

std::vector<uint8_t> payload_seed(Reader reader, const Encoder& encoder, int32_t layer, int64_t tokens,
                                  const RankCaps& caps) {
  const testing::SampleChunk sample(codecs().model, layer, 32, tokens, 5);
  ByteBuffer payload;
  encoder.encode(sample.chunk, caps, payload);
  std::vector<uint8_t> seed{reader};
  append(static_cast<uint16_t>(layer), seed);
  append(uint32_t{32}, seed);
  append(static_cast<uint32_t>(tokens), seed);
  for (const std::byte byte : payload) seed.push_back(static_cast<uint8_t>(byte));
  return seed;
}

// The encoder makes no packed bodies by itself.
std::vector<uint8_t> packed_rd_seed(int32_t layer, int64_t tokens, int32_t level) {
  const RdQuantiser quantiser(codecs().rd_sample.encoder.quantiser);
  const auto unit = static_cast<int32_t>(codecs().rd_sample.encoder.plan.unit_at(layer));
  const int64_t components = quantiser.components(unit, level);
  ByteBuffer payload;
  append_payload_header({PayloadKind::kRd, static_cast<uint16_t>(tokens), static_cast<uint16_t>(components),
                         static_cast<uint16_t>(level)},
                        payload);
  quantiser.encode(unit, level, testing::random_matrix(components, tokens, 6).view(), payload, RdForm::kPacked);
  std::vector<uint8_t> seed{kRdDecoder};
  append(static_cast<uint16_t>(layer), seed);
  append(uint32_t{32}, seed);
  append(static_cast<uint32_t>(tokens), seed);
  for (const std::byte byte : payload) seed.push_back(static_cast<uint8_t>(byte));
  return seed;
}

}  // namespace

std::vector<std::vector<uint8_t>> seed_corpus() {
  const Codecs& all = codecs();
  std::vector<std::vector<uint8_t>> seeds;
  const std::pair<Reader, CodecId> plain[] = {{kRawDecoder, CodecId::kRaw},
                                              {kRotatingRawDecoder, CodecId::kRaw},
                                              {kLosslessDecoder, CodecId::kLossless},
                                              {kInt8Decoder, CodecId::kInt8},
                                              {kInt4Decoder, CodecId::kInt4}};
  for (const auto& [reader, id] : plain) {
    const auto encoder = make_encoder(id, all.model, nullptr);
    seeds.push_back(payload_seed(reader, *encoder, 0, 1, {}));
    seeds.push_back(payload_seed(reader, *encoder, 2, 70, {}));
  }
  seeds.push_back(payload_seed(kScdDecoder, all.scd_encoder, 0, 3, {}));
  seeds.push_back(payload_seed(kScdDecoder, all.scd_encoder, 2, 5, {.key = 2, .value = 3, .hidden = 0}));
  seeds.push_back(payload_seed(kScdDecoder, all.scd_encoder, 1, 4, {}));
  for (const int32_t level : {0, 1, 2}) {
    const int32_t layer = 1 + level % 2;  // keys and values, a residual stream
    seeds.push_back(payload_seed(kRdDecoder, all.rd_encoder, layer, 9, {.level = level}));
    seeds.push_back(packed_rd_seed(layer, 9, level));
  }
  for (const int32_t layer : {1, 2}) {
    seeds.push_back(payload_seed(kDroidSpeakDecoder, all.droidspeak_encoder, layer, 6, {}));
    seeds.push_back(payload_seed(kLoraDeltaDecoder, all.lora_encoder, layer, 6, {}));
  }
  seeds.push_back(payload_seed(kLoraDeltaDecoder, all.lora_encoder, 0, 6, {}));
  MessageHeader header{.request_id = 7, .generation = 2, .layer_count = 1, .token_count = 128, .payload_bytes = 4096};
  for (const uint16_t flags : {uint16_t{0}, kFlagLastOfRequest}) {
    header.flags = flags;
    std::vector<uint8_t> seed{kMessageHeader};
    for (const std::byte byte : serialize(header)) seed.push_back(static_cast<uint8_t>(byte));
    seeds.push_back(std::move(seed));
  }
  return seeds;
}

}  // namespace scd::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace scd::fuzz;
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % kReaders) {
    case kMessageHeader: read_message(bytes); break;
    case kRawDecoder: read_payload(*codecs().raw, bytes); break;
    case kRotatingRawDecoder: read_payload(*codecs().rotating, bytes); break;
    case kLosslessDecoder: read_payload(*codecs().lossless, bytes); break;
    case kInt8Decoder: read_payload(*codecs().int8, bytes); break;
    case kInt4Decoder: read_payload(*codecs().int4, bytes); break;
    case kDroidSpeakDecoder: read_payload(codecs().droidspeak, bytes); break;
    case kLoraDeltaDecoder: read_payload(codecs().lora_delta, bytes); break;
    case kRdDecoder: read_payload(codecs().rd, bytes); break;
    default: read_payload(codecs().scd, bytes); break;
  }
  return 0;
}
