// Codes to payloads and back on a GPU: the bytes and numbers of the CPU.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/codec/key_rotation.h"
#include "common/codec/rd/rd_codec.h"
#include "kernels/coded_streams.h"
#include "tests/support/gpu.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

using testing::random_matrix;
using testing::sample_rd;
using testing::SampleChunk;
using testing::small_model;

constexpr auto kGpu = kernels::Device::kGpu;
constexpr int64_t kComponents = 40;

class RdStreams : public ::testing::Test {
 protected:
  void SetUp() override { SCD_SKIP_WITHOUT_GPU(); }

  static RdQuantiser make_quantiser() {
    RdQuantiserSettings settings = sample_rd(small_model(), layer_by_layer(3, 0), {0.1f, 0.4f}).encoder.quantiser;
    std::vector<float> deviations;
    for (int64_t i = 0; i < kComponents; ++i) deviations.push_back(4.0f * std::exp2(-0.1f * static_cast<float>(i)));
    settings.deviations = {std::move(deviations)};
    return RdQuantiser(settings);
  }

  DenseMatrix codes(int64_t rows, int64_t tokens, uint32_t seed) const {
    DenseMatrix values = random_matrix(rows, tokens, seed);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t t = 0; t < tokens; ++t) {
        values.at(row, t) *= quantiser_.settings().deviations[0][static_cast<size_t>(row)];
      }
    }
    return values;
  }

  static DenseMatrix columns(const DenseMatrix& all, int64_t first, int64_t count) {
    DenseMatrix part(all.rows, count);
    for (int64_t row = 0; row < all.rows; ++row) {
      for (int64_t t = 0; t < count; ++t) part.at(row, t) = all.at(row, first + t);
    }
    return part;
  }

  // offsets: of the rows, or none.
  std::vector<ByteBuffer> on_device(const DenseMatrix& values, std::span<const int64_t> chunks, int32_t level,
                                    std::span<const float> offsets = {}) {
    const kernels::Matrix there = encoder_->numbers(values.rows, values.columns);
    kernels::copy(values.view(), there);
    const kernels::DeviceVector offsets_there(offsets, kGpu);
    kernels::StreamRows rows = tables_->rows(0, level);
    if (!offsets.empty()) rows.offsets = std::span<const float>(offsets_there).data();
    encoder_->start(rd_stream_parts(values.rows, chunks), rows);
    std::vector<ByteBuffer> bodies;
    const std::vector<kernels::CodedStream> streams = encoder_->finish();
    for (const kernels::CodedStream& stream : streams) {
      if (stream.rans.empty()) return bodies;
    }
    for (const auto of_chunk : rd_streams_by_chunk(streams, values.rows, chunks)) {
      RdQuantiser::append_entropy_body(of_chunk, bodies.emplace_back());
    }
    return bodies;
  }

  struct Decoded {
    kernels::StreamProblem problem;
    DenseMatrix values;  // [tokens, components]
  };
  std::vector<Decoded> decoded(std::span<const ByteBuffer> bodies, std::span<const int64_t> chunks, int64_t rows,
                               int32_t level) {
    std::vector<kernels::GrowBuffer> memory(bodies.size());
    std::vector<kernels::StreamToDecode> streams;
    std::vector<size_t> body_of;
    std::vector<kernels::Matrix> numbers;
    for (size_t i = 0; i < bodies.size(); ++i) {
      const auto coded = RdQuantiser::entropy_streams(bodies[i], rows, chunks[i]);
      if (!coded) throw std::runtime_error("a body that is cut off");
      numbers.push_back(memory[i].matrix(chunks[i], rows, kernels::DType::kBF16, kGpu));
      for (const kernels::StreamPart& part : rd_stream_parts(rows, std::span(&chunks[i], 1))) {
        const auto number = static_cast<size_t>(part.first_row / rd_stream_components(chunks[i]));
        kernels::StreamRows of_stream = tables_->rows(0, level);
        of_stream.rows += part.first_row;
        streams.push_back(
            {(*coded)[number], of_stream, part.rows, kernels::columns_of(numbers[i], part.first_row, part.rows)});
        body_of.push_back(i);
      }
    }
    std::vector<kernels::StreamProblem> problems(bodies.size(), kernels::StreamProblem::kNone);
    kernels::StreamDecoder decoder;
    decoder.start(streams);
    const std::vector<kernels::StreamProblem> of_streams = decoder.finish();
    for (size_t s = 0; s < streams.size(); ++s) {
      if (of_streams[s] != kernels::StreamProblem::kNone) problems[body_of[s]] = of_streams[s];
    }
    std::vector<Decoded> all;
    for (const kernels::StreamProblem problem : problems) {
      const kernels::Matrix& there = numbers[all.size()];
      kernels::GrowBuffer brought_memory;
      const kernels::Matrix brought = brought_memory.matrix(there.rows, there.columns, kernels::DType::kBF16);
      kernels::copy(there, brought);
      DenseMatrix values(there.rows, there.columns);
      for (int64_t t = 0; t < there.rows; ++t) {
        for (int64_t c = 0; c < there.columns; ++c) {
          values.at(t, c) = kernels::to_float(brought.row<kernels::BFloat16>(t)[c]);
        }
      }
      all.push_back({problem, std::move(values)});
    }
    return all;
  }

  // Codes as they are, and as the sums of numbers and offsets.
  void expect_those_of_the_cpu(const DenseMatrix& values, std::span<const int64_t> chunks, int32_t level) {
    expect_bodies(on_device(values, chunks, level), values, chunks, level);
    const std::vector<float> offsets = random_matrix(1, values.rows, 5).values;
    DenseMatrix sums = values;
    for (int64_t row = 0; row < sums.rows; ++row) {
      for (int64_t t = 0; t < sums.columns; ++t) sums.at(row, t) += offsets[static_cast<size_t>(row)];
    }
    expect_bodies(on_device(values, chunks, level, offsets), sums, chunks, level);
  }

  void expect_bodies(const std::vector<ByteBuffer>& bodies, const DenseMatrix& values, std::span<const int64_t> chunks,
                     int32_t level) {
    ASSERT_EQ(bodies.size(), chunks.size());
    const std::vector<Decoded> back = decoded(bodies, chunks, values.rows, level);
    int64_t first = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      ByteBuffer expected;
      quantiser_.encode(0, level, columns(values, first, chunks[i]).view(), expected);
      ASSERT_EQ(bodies[i], expected) << "chunk " << i;
      DenseMatrix numbers(values.rows, chunks[i]);
      ASSERT_EQ(quantiser_.decode(0, level, expected, numbers.view()), "");
      ASSERT_EQ(back[i].problem, kernels::StreamProblem::kNone) << i;
      for (int64_t c = 0; c < values.rows; ++c) {
        for (int64_t t = 0; t < chunks[i]; ++t) {
          const float rounded = kernels::to_float(kernels::to_bfloat16(numbers.at(c, t)));
          ASSERT_EQ(back[i].values.at(t, c), rounded) << "chunk " << i << ", " << c << ", " << t;
        }
      }
      first += chunks[i];
    }
  }

  RdQuantiser quantiser_ = make_quantiser();
  std::optional<RdTablesOnDevice> tables_ =
      kernels::gpu_device().usable ? std::optional<RdTablesOnDevice>(quantiser_) : std::nullopt;
  std::optional<kernels::StreamEncoder> encoder_ =
      kernels::gpu_device().usable ? std::optional<kernels::StreamEncoder>(std::in_place) : std::nullopt;
};

// Layers 1 and 2 of the small model, each on its own, at one level.
struct TwoUnits {
  CodecModel model = small_model();
  testing::RdSample sample = sample_rd(model, {1, {{1, 1}, {2, 1}}, true}, {0.1f});
  RdEncoder encoder{model, sample.encoder, {}, kGpu};
  RdDecoder decoder{model, sample.decoder, {}, kGpu};
};

TEST_F(RdStreams, BytesAndNumbersAreThoseOfTheCpu) {
  for (const int64_t rows : {kComponents, int64_t{1}, int64_t{0}}) {
    const int64_t chunks[] = {128, 1, 37, 16, 256, 3};
    for (const int32_t level : {0, 1}) {
      const int64_t components = std::min(rows, quantiser_.components(0, level));
      expect_those_of_the_cpu(codes(components, 441, 11), chunks, level);
    }
  }
}

// Of 2,000 tokens 32 components are a stream, of 4,096 sixteen.
TEST_F(RdStreams, LongChunksAreSeveralStreams) {
  const int64_t chunks[] = {2000, 30, 4096};
  DenseMatrix values = codes(kComponents, 6126, 15);
  for (int64_t row = 0; row < kComponents; ++row) values.at(row, 100 + row) = values.at(row, 6000) = 1e5f;
  for (const int32_t level : {0, 1}) {
    const int64_t components = quantiser_.components(0, level);
    DenseMatrix sent(components, values.columns);
    std::copy_n(values.values.begin(), sent.values.size(), sent.values.begin());
    expect_those_of_the_cpu(sent, chunks, level);
  }
}

TEST_F(RdStreams, NumbersWithoutASymbolEscapeInTheirOrder) {
  const float infinity = std::numeric_limits<float>::infinity();
  const int64_t chunks[] = {64, 50};
  DenseMatrix values = codes(kComponents, 114, 12);
  std::mt19937 random(3);
  for (const float value : {1e6f, -1e6f, 3e38f, -3e38f, infinity, -infinity, 77.0f, -1234.5f}) {
    for (int i = 0; i < 20; ++i) values.values[random() % values.values.size()] = value;
  }
  values.values[5] = std::numeric_limits<float>::quiet_NaN();
  expect_those_of_the_cpu(values, chunks, 0);
}

TEST_F(RdStreams, WhereNearlyAllEscapeTheHostHasToCode) {
  DenseMatrix values(kComponents, 64);
  std::ranges::fill(values.values, 1e6f);
  const int64_t chunk = 64;
  EXPECT_TRUE(on_device(values, {&chunk, 1}, 0).empty());
  expect_those_of_the_cpu(codes(kComponents, 64, 13), {&chunk, 1}, 0);  // and it is as good as new
}

// Of 2,000 tokens 32 components are a stream, so that one chunk is of two.
TEST_F(RdStreams, OneStreamWithoutRoomLeavesTheOthersAsTheyAre) {
  const int64_t chunks[] = {30, 2000};
  DenseMatrix values = codes(kComponents, 2030, 16);
  for (int64_t t = 30; t < 2030; ++t) {
    for (int64_t row = 0; row < 12; ++row) values.at(row, t) = 1e6f;
  }
  const kernels::Matrix there = encoder_->numbers(values.rows, values.columns);
  kernels::copy(values.view(), there);
  encoder_->start(rd_stream_parts(values.rows, chunks), tables_->rows(0, 0));
  std::vector<bool> coded;
  for (const kernels::CodedStream& stream : encoder_->finish()) coded.push_back(!stream.rans.empty());
  EXPECT_EQ(coded, (std::vector<bool>{true, false, true}));
}

TEST_F(RdStreams, ReadingsRunBesideEachOtherAndMayBeDropped) {
  const TwoUnits units;
  const auto& [model, sample, encoder, decoder] = units;
  std::vector<ByteBuffer> bytes;
  for (int i = 0; i < 6; ++i) {
    const SampleChunk chunk(model, 1, 16 * i, 16, static_cast<uint32_t>(40 + i));
    encoder.encode(chunk.chunk, {}, bytes.emplace_back());
  }
  const SampleChunk anchors(model, 1, 0, 16, 40);
  const auto decoded = [&](const CodeBlock& block) {
    PayloadPlace place = block.place;
    place.anchor = anchors.chunk.anchor;
    DecodedLayer out;
    decoder.decode_block(place, block, out);
    DenseMatrix keys(out.tokens, model.kv_width());
    kernels::copy(out.key_rows(), keys.view());
    return keys.values;
  };
  std::vector<std::vector<float>> alone, beside;
  for (int i = 0; i < 6; ++i) {
    const Payload one{{1, 16 * i, 16}, bytes[static_cast<size_t>(i)]};
    alone.push_back(decoded(decoder.read_ahead({&one, 1}).value_or_throw().front()));
  }
  std::vector<std::unique_ptr<PendingBlocks>> reading;
  for (int i = 0; i < 6; ++i) {
    const Payload one{{1, 16 * i, 16}, bytes[static_cast<size_t>(i)]};
    (void)decoder.begin_reading({&one, 1}).value_or_throw();  // dropped: its memory is the next one's
    reading.push_back(decoder.begin_reading({&one, 1}).value_or_throw());
    std::ranges::fill(bytes[static_cast<size_t>(i)], std::byte{0xFF});  // which nobody needs any more
  }
  for (const auto& pending : reading) beside.push_back(decoded(pending->finish().value_or_throw().front()));
  EXPECT_EQ(beside, alone);
}

TEST_F(RdStreams, WhatTheCpuRefusesIsRefused) {
  const int64_t tokens = 48;
  DenseMatrix values = codes(kComponents, tokens, 14);
  values.values[100] = 1e5f;
  ByteBuffer sound;
  quantiser_.encode(0, 0, values.view(), sound);
  std::mt19937 random(4);
  std::vector<ByteBuffer> bodies;
  for (int i = 0; i < 400; ++i) {
    ByteBuffer body = sound;
    const int kind = i % 4;
    if (kind == 0) body[4 + random() % (body.size() - 4)] ^= static_cast<std::byte>(1U << random() % 8);
    if (kind == 1) body.resize(4 + 64 + random() % (body.size() - 68));
    if (kind == 2) body.insert(body.end(), 4 * (1 + random() % 3), std::byte{1});
    if (kind == 3) {
      for (size_t at = 4; at < body.size(); ++at) body[at] = static_cast<std::byte>(random());
    }
    auto length = static_cast<uint32_t>(body.size() - 4);
    if (kind == 0 || kind == 2) length = static_cast<uint32_t>(sound.size() - 8);  // an escape behind the stream
    std::memcpy(body.data(), &length, sizeof length);
    bodies.push_back(std::move(body));
  }
  const std::vector<int64_t> chunks(bodies.size(), tokens);
  const std::vector<Decoded> found = decoded(bodies, chunks, kComponents, 0);
  int refused = 0;
  for (size_t i = 0; i < bodies.size(); ++i) {
    DenseMatrix numbers(kComponents, tokens);
    const std::string problem = quantiser_.decode(0, 0, bodies[i], numbers.view());
    EXPECT_EQ(found[i].problem == kernels::StreamProblem::kNone, problem.empty()) << i << ": " << problem;
    refused += problem.empty() ? 0 : 1;
  }
  EXPECT_GT(refused, 300);
}

// Encoder and decoder of an artifact, each on either device; the bounds are in the table of kernels/README.md.
TEST_F(RdStreams, EitherDeviceReadsWhatTheOtherWrote) {
  const CodecModel model = small_model();
  const LayerPlan plan{1, {{1, 2}}, true};
  testing::RdSample sample = sample_rd(model, plan, {1e-4f, 0.02f, 0.5f});  // of the first nearly all escape
  const std::vector<float> offset = random_matrix(1, 4 * model.kv_width(), 17).values;
  for (size_t i = 0; i < offset.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    sample.encoder.units[0].offset[i] = offset[i];
    sample.decoder.units[0].mean[i] = -offset[i] * sample.decoder.units[0].map.at(row, row);
  }
  const SampleChunk chunk(model, 1, 32, 70, 21, 2);
  const RankCaps levels[] = {{.level = 0}, {.level = 1}, {.level = 2}, {.level = 2, .packed = true}};
  for (const RankCaps& caps : levels) {
    std::vector<DenseMatrix> keys;
    for (const auto from : {kernels::Device::kCpu, kGpu}) {
      const RdEncoder encoder(model, sample.encoder, {}, from);
      const std::vector<int64_t> tokens{32, 38};
      const std::vector<ByteBuffer> payloads = encoder.begin(chunk.chunk, tokens, caps)->finish();
      for (const auto to : {kernels::Device::kCpu, kGpu}) {
        const RdDecoder decoder(model, sample.decoder, {}, to);
        DenseMatrix all(70, 2 * model.kv_width());
        int64_t first = 0;
        for (size_t i = 0; i < payloads.size(); ++i) {
          const LayerChunk part = rows_of(chunk.chunk, first, tokens[i]);
          DecodedLayer out;
          ASSERT_TRUE(decoder.decode({1, 32 + first, tokens[i], part.anchor}, payloads[i], out).ok());
          kernels::Matrix place = all.view();
          place.data = place.row<float>(first);
          place.rows = tokens[i];
          kernels::copy(out.key_rows(), place);
          ASSERT_EQ(out.on_device.present && out.on_device.rope != nullptr, to == kGpu);
          if (to == kGpu) {
            rotate_chunk(place, model.head_dim, 32 + first, *out.on_device.rope, kernels::RopeDirection::kRotate);
          }
          first += tokens[i];
        }
        keys.push_back(std::move(all));
      }
    }
    for (size_t i = 1; i < keys.size(); ++i) {
      double error = 0, energy = 0;
      for (size_t v = 0; v < keys[0].values.size(); ++v) {
        error += std::pow(keys[i].values[v] - keys[0].values[v], 2);
        energy += std::pow(keys[0].values[v], 2);
      }
      EXPECT_LT(std::sqrt(error / energy), caps.level < 2 ? 0.02 : 0.1) << i;
    }
  }
}

TEST_F(RdStreams, PayloadsThatFollowEachOtherBecomeABlock) {
  const TwoUnits units;
  const auto& [model, sample, encoder, decoder] = units;
  std::vector<ByteBuffer> bytes;
  std::vector<Payload> payloads;
  for (const int32_t layer : {2, 1}) {
    const SampleChunk chunk(model, layer, 16, 48, 31);
    const int64_t tokens[] = {16, 16, 16};
    for (ByteBuffer& payload : encoder.begin(chunk.chunk, tokens, {})->finish()) bytes.push_back(std::move(payload));
  }
  const std::pair<int32_t, int64_t> places[] = {{2, 16}, {2, 32}, {2, 48}, {1, 16}, {1, 32}, {1, 48}};
  for (const size_t i : {5, 0, 2, 1, 3}) payloads.push_back({{places[i].first, places[i].second, 16}, bytes[i]});
  const auto blocks = decoder.read_ahead(payloads);
  ASSERT_TRUE(blocks.ok());
  std::vector<std::array<int64_t, 3>> found;
  for (const CodeBlock& block : blocks.value()) {
    found.push_back({block.place.layer, block.place.first_position, block.place.tokens});
  }
  EXPECT_EQ(found, (std::vector<std::array<int64_t, 3>>{{1, 16, 16}, {1, 48, 16}, {2, 16, 48}}));
  payloads[2].bytes = payloads[2].bytes.first(payloads[2].bytes.size() - 2);
  const auto refused = decoder.read_ahead(payloads);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.failure().message.find("layer 2, tokens [48, 64)"), std::string::npos) << refused.failure().message;
}

}  // namespace
}  // namespace scd
