#include "common/codec/rd/rd_quantiser.h"

#include <gmock/gmock.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "common/codec/rd/packed_codes.h"
#include "tests/unit/codec/rd_samples.h"

namespace scd {
namespace {

using testing::random_matrix;
using testing::sample_rd;
using testing::small_model;

TEST(ComponentRows, VectorsQuantiseAsSingleValuesDo) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> values{0.0f,  -0.0f, 1e-40f, -1e-40f,  0.06f,     -0.06f,
                            0.16f, 1e9f,  -3e38f, infinity, -infinity, std::numeric_limits<float>::quiet_NaN()};
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  while (values.size() < 333) values.push_back(normal(random) * std::exp2(static_cast<float>(values.size() % 9) - 4));
  const float step = 0.1f;
  for (const size_t count : {0U, 1U, 7U, 8U, 31U, 33U, 333U}) {
    std::vector<uint8_t> symbols(count);
    const SymbolRange range{-5, 6};
    const bool escapes = quantise_row(std::span(values).first(count), step, range, 128, symbols.data());
    bool expected_escapes = false;
    for (size_t i = 0; i < count; ++i) {
      const int32_t integer = rd_quantise(values[i], step);
      const bool inside = integer >= range.low && integer <= range.high;
      expected_escapes |= !inside;
      EXPECT_EQ(symbols[i], inside ? integer + 128 : kRdEscape) << values[i];
    }
    EXPECT_EQ(escapes, expected_escapes) << count;
  }
  EXPECT_EQ(rd_quantise(infinity, step), 1'000'000'000);
  EXPECT_EQ(rd_quantise(-infinity, step), -1'000'000'000);
}

TEST(ComponentRows, VectorsGiveTheBitsOfSingleValues) {
  std::vector<uint8_t> symbols;
  for (int i = 0; i < 333; ++i) symbols.push_back(static_cast<uint8_t>(1 + i * 37 % 255));
  const CellPlace cell{0.037f, -0.021f};
  for (const size_t count : {0U, 1U, 8U, 31U, 33U, 333U}) {
    std::vector<float> values(count);
    EXPECT_FALSE(dequantise_row(std::span(symbols).first(count), 128, cell, values.data()));
    for (size_t i = 0; i < count; ++i) {
      const float expected = rd_value_of(symbols[i] - 128, cell);
      EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), std::bit_cast<uint32_t>(expected));
    }
  }
  symbols[300] = kRdEscape;
  std::vector<float> values(symbols.size());
  EXPECT_TRUE(dequantise_row(symbols, 128, cell, values.data()));
}

TEST(PackedCodes, ComeBackInEveryWidthAndLength) {
  std::mt19937 random(2);
  for (int bits = 1; bits <= kMaxPackedBits; ++bits) {
    for (const size_t count : {0U, 1U, 7U, 8U, 9U, 31U, 33U, 63U, 64U, 65U, 257U}) {
      std::vector<uint8_t> codes(count), read(count);
      for (uint8_t& code : codes) code = static_cast<uint8_t>(random() & ((1U << bits) - 1));
      std::vector<std::byte> packed(packed_bytes(count, bits));
      pack_codes(codes, bits, packed.data());
      for (size_t i = 0; i < count * static_cast<size_t>(bits); ++i) {
        const auto code = codes[i / static_cast<size_t>(bits)];
        EXPECT_EQ(std::to_integer<int>(packed[i / 8] >> i % 8) & 1, code >> i % static_cast<size_t>(bits) & 1);
      }
      ASSERT_TRUE(unpack_codes(packed.data(), bits, read));
      EXPECT_EQ(read, codes) << bits << " bits, " << count;
      if (count * static_cast<size_t>(bits) % 8 == 0) continue;
      packed.back() |= std::byte{0x80};
      EXPECT_FALSE(unpack_codes(packed.data(), bits, read)) << bits << " bits, " << count;
    }
  }
}

class RdForms : public ::testing::TestWithParam<RdForm> {
 protected:
  // Values of the deviations that the sample says, a few of them far out.
  static DenseMatrix codes(int64_t components, int64_t tokens) {
    DenseMatrix values = random_matrix(components, tokens, 3);
    for (size_t i = 5; i < values.values.size(); i += 97) values.values[i] *= 50.0f;
    return values;
  }
  ByteBuffer encode(int32_t level, const DenseMatrix& values) const {
    ByteBuffer body;
    quantiser_.encode(1, level, values.view(), body, GetParam());
    return body;
  }
  std::string decode(int32_t level, std::span<const std::byte> body, DenseMatrix& values) const {
    return quantiser_.decode(1, level, body, values.view());
  }

  RdQuantiser quantiser_{sample_rd(small_model(), layer_by_layer(3, 0), {0.02f, 0.2f, 1.0f}).encoder.quantiser};
};

TEST_P(RdForms, GiveTheQuantisedValuesAtAwkwardSizes) {
  for (const int32_t level : {0, 1, 2}) {
    const float step = quantiser_.settings().steps[static_cast<size_t>(level)];
    for (const int64_t tokens : {1, 7, 16, 31, 33, 128}) {
      for (const int64_t components : {int64_t{0}, int64_t{1}, quantiser_.components(1, level)}) {
        const DenseMatrix values = codes(components, tokens);
        const ByteBuffer body = encode(level, values);
        EXPECT_LE(body.size(), RdQuantiser::max_bytes(components * tokens));
        EXPECT_EQ(encode(level, values), body);
        DenseMatrix read(components, tokens);
        ASSERT_EQ(decode(level, body, read), "");
        for (size_t i = 0; i < values.values.size(); ++i) {
          const CellPlace cell{step, 0.0f};
          ASSERT_EQ(read.values[i], rd_value_of(rd_quantise(values.values[i], step), cell));
        }
      }
    }
  }
}

TEST_P(RdForms, AreRefusedWhenCutOrLonger) {
  const DenseMatrix values = codes(quantiser_.components(1, 1), 21);
  ByteBuffer body = encode(1, values);
  DenseMatrix read(values.rows, values.columns);
  for (size_t length = 0; length < body.size(); ++length) {
    const std::vector<std::byte> cut(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_NE(decode(1, cut, read), "") << length;
  }
  body.push_back(std::byte{0});
  EXPECT_NE(decode(1, body, read), "");
}

TEST_P(RdForms, AreReadWithinTheirBytesWhateverBitFlips) {
  const DenseMatrix values = codes(quantiser_.components(1, 2), 21);
  const ByteBuffer body = encode(2, values);
  DenseMatrix read(values.rows, values.columns);
  for (size_t bit = 0; bit < 8 * body.size(); ++bit) {
    std::vector<std::byte> flipped(body.begin(), body.end());
    flipped[bit / 8] ^= std::byte{1} << bit % 8;
    const std::string problem = decode(2, flipped, read);
    EXPECT_TRUE(!problem.empty() || std::isfinite(read.values.front())) << bit;
  }
}

INSTANTIATE_TEST_SUITE_P(Both, RdForms, ::testing::Values(RdForm::kEntropy, RdForm::kPacked));

TEST(RdQuantiser, PackedTakesMoreBytesButFewerThanFourBitsAValue) {
  const RdQuantiser quantiser(sample_rd(small_model(), layer_by_layer(3, 0), {0.05f, 1.0f}).encoder.quantiser);
  DenseMatrix values = random_matrix(quantiser.components(0, 1), 256, 4);
  for (int64_t row = 0; row < values.rows; ++row) {
    for (int64_t i = 0; i < 256; ++i) values.at(row, i) *= quantiser.settings().deviations[0][static_cast<size_t>(row)];
  }
  ByteBuffer entropy, packed;
  quantiser.encode(0, 1, std::as_const(values).view(), entropy);
  quantiser.encode(0, 1, std::as_const(values).view(), packed, RdForm::kPacked);
  EXPECT_LT(entropy.size(), packed.size());
  EXPECT_LT(packed.size(), values.values.size() / 2);
}

// Of 4,096 tokens sixteen components are a stream.
TEST(RdQuantiser, LongBodiesAreSeveralStreams) {
  RdQuantiserSettings settings = sample_rd(small_model(), layer_by_layer(3, 0), {0.2f}).encoder.quantiser;
  settings.deviations[0] = std::vector<float>(40, 1.0f);
  const RdQuantiser quantiser(settings);
  DenseMatrix values = random_matrix(40, 4096, 6);
  values.at(3, 7) = values.at(20, 0) = values.at(20, 1) = values.at(39, 4095) = 1e5f;
  ByteBuffer body;
  quantiser.encode(0, 0, std::as_const(values).view(), body);
  EXPECT_LE(body.size(), RdQuantiser::max_bytes(std::ssize(values.values)));
  const auto streams = RdQuantiser::entropy_streams(body, 40, 4096);
  ASSERT_TRUE(streams);
  std::vector<size_t> escapes;
  for (const kernels::CodedStream& stream : *streams) escapes.push_back(stream.escapes.size() / sizeof(int32_t));
  EXPECT_EQ(escapes, (std::vector<size_t>{1, 2, 1}));
  DenseMatrix read(40, 4096);
  ASSERT_EQ(quantiser.decode(0, 0, body, read.view()), "");
  for (size_t i = 0; i < values.values.size(); ++i) {
    const CellPlace cell{0.2f, quantiser.shift(quantiser.table_of(0, 0, 0))};
    ASSERT_EQ(read.values[i], rd_value_of(rd_quantise(values.values[i], 0.2f), cell)) << i;
  }
  for (size_t word = 0; word < 5; ++word) {  // three lengths, two numbers of escapes
    for (const uint32_t change : {1U, 2U, 0x4000U, 0x40000000U}) {
      ByteBuffer other = body;
      uint32_t number;
      std::memcpy(&number, other.data() + word * sizeof number, sizeof number);
      number ^= change;
      std::memcpy(other.data() + word * sizeof number, &number, sizeof number);
      EXPECT_NE(quantiser.decode(0, 0, other, read.view()), "") << word << ", " << change;
    }
  }
  for (const size_t length : {size_t{4}, size_t{19}, size_t{20}, body.size() / 2, body.size() - 4}) {
    EXPECT_NE(quantiser.decode(0, 0, std::span(body).first(length), read.view()), "") << length;
  }
}

TEST(RdQuantiser, AnUnknownFormIsNamed) {
  const RdQuantiser quantiser(sample_rd(small_model(), layer_by_layer(3, 0), {0.05f}).encoder.quantiser);
  ByteBuffer body;
  quantiser.encode(0, 0, random_matrix(2, 8, 5).view(), body, RdForm::kPacked);
  body[1] = std::byte{1};
  DenseMatrix read(2, 8);
  EXPECT_THAT(quantiser.decode(0, 0, body, read.view()), ::testing::HasSubstr("unknown form"));
}

}  // namespace
}  // namespace scd
