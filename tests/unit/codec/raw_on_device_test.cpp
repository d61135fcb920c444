// Codec raw on a GPU: the bytes and bits of the CPU.
#include "common/codec/raw_on_device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>

#include "common/codec/registry.h"
#include "kernels/grow_buffer.h"
#include "kernels/paged_kv.h"
#include "tests/support/gpu.h"
#include "tests/unit/codec/codec_samples.h"

namespace scd {
namespace {

using testing::SampleChunk;
using testing::small_model;

constexpr auto kCpu = kernels::Device::kCpu;
constexpr auto kGpu = kernels::Device::kGpu;
constexpr int64_t kPageTokens = 16;
const std::vector<int32_t> kPageIds{5, 0, 11, 3, 8, 1, 9, 2, 10, 4};

// A layer's cache on a device, the same on each for the same seed; any bits at all, or numbers.
class Cache {
 public:
  Cache(const CodecModel& model, kernels::DType dtype, kernels::Device device, uint32_t seed, bool finite) {
    const auto count = static_cast<size_t>(2 * 12 * kPageTokens * model.kv_width());
    std::vector<float> numbers(count);
    std::vector<uint16_t> halves(count);
    std::mt19937 random(seed);
    for (size_t i = 0; i < count; ++i) {
      const auto bits = static_cast<uint32_t>(random()) & (finite ? 0xbfffffffU : 0xffffffffU);
      numbers[i] = std::bit_cast<float>(bits);
      halves[i] = static_cast<uint16_t>(bits >> 16);
    }
    const bool wide = dtype == kernels::DType::kF32;
    memory_ = kernels::buffer_of(wide ? std::as_bytes(std::span(numbers)) : std::as_bytes(std::span(halves)), device);
    kv_ = {.keys = memory_.data(),
           .values = memory_.data() + memory_.size() / 2,
           .kv_heads = model.kv_heads,
           .page_tokens = kPageTokens,
           .head_dim = model.head_dim,
           .dtype = dtype,
           .device = device,
           .pages = 12};
  }
  const kernels::PagedKv& kv() const { return kv_; }
  std::vector<std::byte> brought() const {
    std::vector<std::byte> here(memory_.size());
    const auto words = static_cast<int64_t>(here.size() / 2);
    kernels::copy({memory_.data(), 1, words, words, kernels::DType::kBF16, kv_.device},
                  {here.data(), 1, words, words, kernels::DType::kBF16});
    return here;
  }

 private:
  kernels::DeviceBuffer memory_;
  kernels::PagedKv kv_;
};

class RawOnDevice : public ::testing::Test {
 protected:
  void SetUp() override { SCD_SKIP_WITHOUT_GPU(); }

  std::unique_ptr<Encoder> encoder(kernels::Device device) const {
    return make_encoder(CodecId::kRaw, model_, nullptr, device);
  }
  std::unique_ptr<Decoder> decoder(kernels::Device device) const {
    return make_decoder(CodecId::kRaw, model_, model_, nullptr, {.device = device});
  }

  // Of consecutive chunks from `first` on, as the encode stage gives them to it.
  std::vector<ByteBuffer> encoded(const Encoder& encoder, const Cache& cache, int64_t first,
                                  const std::vector<int64_t>& chunks) const {
    const int64_t tokens = std::reduce(chunks.begin(), chunks.end());
    kernels::GrowBuffer keys_memory, values_memory;
    LayerChunk rows{.layer = 1, .first_position = first};
    if (encoder.reads_pages()) {
      rows.pages = {std::span(&cache.kv(), 1), kPageIds, tokens};
    } else {
      const kernels::Matrix keys = keys_memory.matrix(tokens, model_.kv_width());
      const kernels::Matrix values = values_memory.matrix(tokens, model_.kv_width());
      kernels::read_kv(cache.kv(), {kPageIds, 0, tokens, first}, keys, values);
      rows.keys = keys;
      rows.values = values;
    }
    return encoder.begin(rows, chunks, {})->finish();
  }

  // Chunks of all three layers, not in order.
  struct Sent {
    std::vector<ByteBuffer> bytes;
    std::vector<Payload> payloads;
  };
  Sent sent(kernels::Device device, int64_t first, const std::vector<int64_t>& chunks) const {
    Sent made;
    std::vector<PayloadPlace> places;
    for (int32_t layer = 0; layer < model_.layers; ++layer) {
      const Cache cache(model_, kernels::DType::kF32, device, static_cast<uint32_t>(layer), true);
      for (ByteBuffer& payload : encoded(*encoder(device), cache, first, chunks)) {
        made.bytes.push_back(std::move(payload));
      }
      int64_t next = first;
      for (const int64_t tokens : chunks) {
        places.push_back({layer, next, tokens});
        next += tokens;
      }
    }
    for (size_t i = 0; i < places.size(); ++i) made.payloads.push_back({places[i], made.bytes[i]});
    std::ranges::shuffle(made.payloads, std::mt19937(1));
    return made;
  }

  // Pages of a cache into which the payloads were decoded, by layer.
  std::vector<std::vector<std::byte>> pages_by(kernels::Device device, kernels::DType dtype, const Sent& sent) const {
    std::vector<Cache> caches;
    for (int32_t layer = 0; layer < model_.layers; ++layer) caches.emplace_back(model_, dtype, device, 9, true);
    const auto decodes = decoder(device);
    const auto write = [&](const PayloadPlace& place, const DecodedLayer& out) {
      const kernels::SequenceRows rows{kPageIds, 0, place.tokens, place.first_position};
      kernels::write_kv(caches[static_cast<size_t>(place.layer)].kv(), {&rows, 1}, out.key_rows(), out.value_rows());
    };
    DecodedLayer out;
    if (decodes->reads_ahead()) {
      for (const CodeBlock& block : decodes->read_ahead(sent.payloads).value_or_throw()) {
        decodes->decode_block(block.place, block, out);
        write(block.place, out);
      }
    } else {
      for (const auto& [place, bytes] : sent.payloads) {
        std::move(decodes->decode(place, bytes, out)).value_or_throw();
        write(place, out);
      }
    }
    std::vector<std::vector<std::byte>> pages;
    for (const Cache& cache : caches) pages.push_back(cache.brought());
    return pages;
  }

  void expect_refused_alike(const PayloadPlace& place, std::span<const std::byte> payload, const char* what) const {
    DecodedLayer out;
    const auto here = decoder(kCpu)->decode(place, payload, out);
    const auto there = decoder(kGpu)->decode(place, payload, out);
    ASSERT_FALSE(here.ok()) << what;
    ASSERT_FALSE(there.ok()) << what;
    EXPECT_EQ(there.failure().code, here.failure().code) << what;
    EXPECT_EQ(there.failure().message, here.failure().message);
  }

  const CodecModel model_ = small_model();
};

TEST_F(RawOnDevice, EncodesTheBytesOfTheCpu) {
  const auto on_cpu = encoder(kCpu), on_cuda = encoder(kGpu);
  EXPECT_EQ(on_cuda->id(), on_cpu->id());
  EXPECT_TRUE(on_cuda->reads_pages());
  for (const kernels::DType dtype : {kernels::DType::kF32, kernels::DType::kBF16}) {
    const Cache here(model_, dtype, kCpu, 7, false), there(model_, dtype, kGpu, 7, false);
    for (const auto& [first, chunks] :
         {std::pair(int64_t{0}, std::vector<int64_t>{1}), {5, {31}}, {17, {33, 1, 64}}, {0, {16, 16, 16, 16, 3}}}) {
      EXPECT_EQ(encoded(*on_cuda, there, first, chunks), encoded(*on_cpu, here, first, chunks))
          << "from " << first << ", " << chunks.size() << " chunks";
    }
  }
}

TEST_F(RawOnDevice, SeveralUnitsAreUnderWayTogether) {
  const auto on_cpu = encoder(kCpu), on_cuda = encoder(kGpu);
  const std::vector<int64_t> chunks{20, 12};
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<PendingPayloads>> pending;
    std::vector<ByteBuffer> expected, found;
    std::vector<Cache> caches;
    for (uint32_t seed = 0; seed < 5; ++seed) {
      caches.emplace_back(model_, kernels::DType::kBF16, kGpu, seed, true);
      pending.push_back(
          on_cuda->begin({.layer = 1, .pages = {std::span(&caches.back().kv(), 1), kPageIds, 32}}, chunks, {}));
      const Cache here(model_, kernels::DType::kBF16, kCpu, seed, true);
      std::ranges::move(encoded(*on_cpu, here, 0, chunks), std::back_inserter(expected));
    }
    pending.erase(pending.begin() + 1);  // of a job that ended
    expected.erase(expected.begin() + 2, expected.begin() + 4);
    for (auto& unit : pending) std::ranges::move(unit->finish(), std::back_inserter(found));
    EXPECT_EQ(found, expected);
  }
}

TEST_F(RawOnDevice, CodesRowsThatAreNotInPages) {
  const SampleChunk sample(model_, 1, 48, 33, 7);
  ByteBuffer expected, from_host, from_there;
  encoder(kCpu)->encode(sample.chunk, {}, expected);
  encoder(kGpu)->encode(sample.chunk, {}, from_host);
  kernels::GrowBuffer keys_memory, values_memory;
  const kernels::Matrix keys = keys_memory.matrix(33, model_.kv_width(), kernels::DType::kF32, kGpu);
  const kernels::Matrix values = values_memory.matrix(33, model_.kv_width(), kernels::DType::kF32, kGpu);
  kernels::copy(sample.chunk.keys, keys);
  kernels::copy(sample.chunk.values, values);
  encoder(kGpu)->encode({.layer = 1, .first_position = 48, .keys = keys, .values = values}, {}, from_there);
  EXPECT_EQ(from_host, expected);
  EXPECT_EQ(from_there, expected);
}

TEST_F(RawOnDevice, EitherReadsWhatTheOtherWrote) {
  const auto& chunks = std::vector<int64_t>{16, 32, 7};
  const Sent by_cpu = sent(kCpu, 3, chunks), by_cuda = sent(kGpu, 3, chunks);
  EXPECT_EQ(by_cuda.bytes, by_cpu.bytes);
  for (const kernels::DType dtype : {kernels::DType::kF32, kernels::DType::kBF16}) {
    const auto expected = pages_by(kCpu, dtype, by_cpu);
    EXPECT_EQ(pages_by(kCpu, dtype, by_cuda), expected);
    for (int round = 0; round < 3; ++round) EXPECT_EQ(pages_by(kGpu, dtype, by_cpu), expected) << round;
  }
}

TEST_F(RawOnDevice, PayloadsWhoseTokensFollowEachOtherShareABlock) {
  Sent all = sent(kGpu, 3, {16, 32, 7});
  EXPECT_EQ(decoder(kGpu)->read_ahead(all.payloads).value_or_throw().size(), 3);
  std::erase_if(all.payloads,
                [](const Payload& payload) { return payload.place.layer == 1 && payload.place.first_position == 19; });
  const std::vector<CodeBlock> blocks = decoder(kGpu)->read_ahead(all.payloads).value_or_throw();
  ASSERT_EQ(blocks.size(), 4);
  EXPECT_EQ(blocks[1].place.layer, 1);
  EXPECT_EQ(blocks[1].place.tokens, 16);
  EXPECT_EQ(blocks[2].place.first_position, 51);
  EXPECT_EQ(blocks[2].place.tokens, 7);
  EXPECT_EQ(pages_by(kGpu, kernels::DType::kBF16, all), pages_by(kCpu, kernels::DType::kBF16, all));
}

TEST_F(RawOnDevice, RefusesWhatTheCpuRefuses) {
  const SampleChunk sample(model_, 1, 48, 33, 7);
  const PayloadPlace place{1, 48, 33};
  ByteBuffer payload;
  encoder(kCpu)->encode(sample.chunk, {}, payload);
  DecodedLayer out;
  ASSERT_TRUE(decoder(kGpu)->decode(place, payload, out).ok());
  const std::span<const std::byte> bytes(payload);
  for (size_t length = 0; length < payload.size(); length += 101) {
    expect_refused_alike(place, bytes.first(length), "cut off");
  }
  ByteBuffer longer = payload;
  longer.push_back(std::byte{0});
  expect_refused_alike(place, longer, "too long");
  for (const size_t at : {0, 1, 2, 4, 6}) {
    ByteBuffer other = payload;
    other[at] ^= std::byte{1};
    expect_refused_alike(place, other, "header");
  }
  const size_t values = kPayloadHeaderBytes + (payload.size() - kPayloadHeaderBytes) / 2;
  for (const size_t at : {kPayloadHeaderBytes, values - 2, values, payload.size() - 2}) {
    for (const uint8_t low : {0x80, 0xc1}) {
      ByteBuffer other = payload;
      other[at] = std::byte{low};
      other[at + 1] = std::byte{0xff};
      expect_refused_alike(place, other, "not finite");
    }
  }
  expect_refused_alike({3, 48, 33}, payload, "layer");
  expect_refused_alike({1, 48, 32}, payload, "tokens");
  expect_refused_alike({1, -1, 33}, payload, "position");
  ByteBuffer lossless;
  make_encoder(CodecId::kLossless, model_, nullptr)->encode(sample.chunk, {}, lossless);
  expect_refused_alike(place, lossless, "kind");
}

TEST_F(RawOnDevice, OnePayloadThatIsNotSoundIsNamedAmongMany) {
  Sent all = sent(kGpu, 3, {16, 32, 7});
  all.bytes[4].back() = std::byte{0x7f};
  all.bytes[4][all.bytes[4].size() - 2] = std::byte{0x80};
  const auto read = decoder(kGpu)->read_ahead(all.payloads);
  ASSERT_FALSE(read.ok());
  EXPECT_EQ(read.failure().message, "payload of layer 1, tokens [19, 51): a value is not finite");
}

TEST_F(RawOnDevice, WhereRopeDiffersTheCpuDecodes) {
  const auto rotating = make_decoder(CodecId::kRaw, model_, small_model(1000000.0), nullptr, {.device = kGpu});
  EXPECT_EQ(rotating->device(), kCpu);
  EXPECT_FALSE(rotating->reads_ahead());
  EXPECT_EQ(decoder(kGpu)->device(), kGpu);
  CodecModel wider = model_;
  wider.kv_heads = 4;
  EXPECT_THROW(make_decoder(CodecId::kRaw, model_, wider, nullptr, {.device = kGpu}), Error);
}

}  // namespace
}  // namespace scd
