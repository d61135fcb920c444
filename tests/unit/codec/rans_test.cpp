#include "common/codec/entropy/rans.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "common/base/error.h"
#include "common/codec/entropy/rans_steps.h"

namespace scd {
namespace {

RansTable geometric_table(double ratio) {
  std::array<uint64_t, kRansSymbols> counts{};
  double count = 1e9;
  for (uint64_t& entry : counts) {
    entry = static_cast<uint64_t>(count);
    count *= ratio;
  }
  return RansTable(scale_to_frequencies(counts));
}

std::vector<uint8_t> draw(const RansTable& table, size_t count, uint32_t seed) {
  std::vector<double> weights;
  for (size_t symbol = 0; symbol < kRansSymbols; ++symbol) {
    weights.push_back(table.frequency(static_cast<uint8_t>(symbol)));
  }
  std::mt19937 random(seed);
  std::discrete_distribution<int> distribution(weights.begin(), weights.end());
  std::vector<uint8_t> symbols(count);
  for (uint8_t& symbol : symbols) symbol = static_cast<uint8_t>(distribution(random));
  return symbols;
}

TEST(Rans, ReadsBackRunsOfAnyLengthEachWithItsTable) {
  const RansTable narrow = geometric_table(0.05), wide = geometric_table(0.97);
  for (const size_t length : {0U, 1U, 7U, 15U, 16U, 17U, 31U, 33U, 100U, 4096U}) {
    const auto first = draw(narrow, length, 1);
    const auto second = draw(wide, 3 * length + 1, 2);
    RansEncoder encoder;
    encoder.put(narrow, first);
    encoder.put(wide, second);
    ByteBuffer stream;
    encoder.finish(stream);
    RansDecoder decoder(stream);
    std::vector<uint8_t> read_first(first.size()), read_second(second.size());
    decoder.take(narrow, read_first);
    decoder.take(wide, read_second);
    EXPECT_EQ(read_first, first);
    EXPECT_EQ(read_second, second);
    EXPECT_TRUE(decoder.finished());
  }
}

TEST(Rans, CostsWhatTheTableSays) {
  for (const double ratio : {0.02, 0.5, 0.98}) {
    const RansTable table = geometric_table(ratio);
    const auto symbols = draw(table, 100'000, 3);
    const double bits = std::accumulate(symbols.begin(), symbols.end(), 0.0, [&](double sum, uint8_t symbol) {
      return sum + kRansProbabilityBits - std::log2(table.frequency(symbol));
    });
    RansEncoder encoder;
    encoder.put(table, symbols);
    ByteBuffer stream;
    encoder.finish(stream);
    const double overhead = static_cast<double>(stream.size()) - bits / 8;
    EXPECT_LT(std::abs(overhead), 4.0 * kRansLanes + 0.002 * bits / 8) << ratio;
  }
}

TEST(Rans, OneSymbolWithAllTheProbabilityCostsNothing) {
  const RansTable table = geometric_table(0.0);
  const std::vector<uint8_t> symbols(100'000, 0);
  RansEncoder encoder;
  encoder.put(table, symbols);
  ByteBuffer stream;
  encoder.finish(stream);
  EXPECT_EQ(stream.size(), 4 * kRansLanes);
}

TEST(Rans, NoticesEveryCutAndEveryFlippedBitAtTheEnd) {
  const RansTable table = geometric_table(0.9);
  const auto symbols = draw(table, 500, 4);
  RansEncoder encoder;
  encoder.put(table, symbols);
  ByteBuffer stream;
  encoder.finish(stream);
  std::vector<uint8_t> read(symbols.size());
  const auto is_sound = [&](std::span<const std::byte> bytes) {
    RansDecoder decoder(bytes);
    decoder.take(table, read);
    return decoder.finished();
  };
  ASSERT_TRUE(is_sound(stream));
  for (size_t length = 0; length < stream.size(); ++length) {
    EXPECT_FALSE(is_sound(std::span<const std::byte>(stream).first(length))) << length;
  }
  ByteBuffer longer = stream;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(is_sound(longer));
}

TEST(Rans, FlippedBitsAreReadWithinTheStream) {
  const RansTable narrow = geometric_table(0.3), wide = geometric_table(0.95);
  const auto first = draw(narrow, 333, 6), second = draw(wide, 333, 7);
  RansEncoder encoder;
  encoder.put(narrow, first);
  encoder.put(wide, second);
  ByteBuffer stream;
  encoder.finish(stream);
  std::vector<uint8_t> read(333);
  size_t sound = 0;
  for (size_t bit = 0; bit < 8 * stream.size(); ++bit) {
    // A copy of exactly that size: the sanitizers see every byte read beyond it.
    std::vector<std::byte> flipped(stream.begin(), stream.end());
    flipped[bit / 8] ^= std::byte{1} << bit % 8;
    RansDecoder decoder(flipped);
    decoder.take(narrow, read);
    decoder.take(wide, read);
    sound += decoder.finished() ? 1 : 0;
  }
  EXPECT_LT(sound, stream.size() / 2);  // a lane may end well by chance: 16 bits at most check it
}

// Tables, and symbols of them, that reach every corner: a symbol of all the probability, rare ones, even ones.
struct VariantCase {
  RansTable table;
  std::vector<uint8_t> symbols;
};

std::vector<VariantCase> variant_cases() {
  std::vector<VariantCase> cases;
  for (const double ratio : {0.0, 0.02, 0.5, 0.97, 1.0}) {
    for (const size_t groups : {0U, 1U, 2U, 3U, 17U, 300U}) {
      const RansTable table = geometric_table(ratio);
      cases.push_back({table, draw(table, groups * kRansLanes, static_cast<uint32_t>(groups))});
    }
  }
  RansFrequencies rare{};
  rare[7] = 1;
  rare[200] = kRansTotal - 1;
  cases.push_back({RansTable(rare), std::vector<uint8_t>(5 * kRansLanes, 7)});
  return cases;
}

struct Coded {
  rans::States states;
  std::vector<uint16_t> words;
  bool operator==(const Coded&) const = default;
};

Coded encode_with(rans::EncodeGroups encode, const VariantCase& one) {
  std::vector<uint16_t> buffer(one.symbols.size() + rans::kScratchWords);
  Coded coded;
  // States over the whole range, so that quotients of every size occur.
  for (uint32_t lane = 0; lane < kRansLanes; ++lane) coded.states[lane] = rans::kLowerBound + 0x0FFF'EFFFU * lane;
  uint16_t* words = buffer.data() + buffer.size();
  EXPECT_TRUE(encode(one.table, coded.states, words, one.symbols));
  coded.words.assign(words, buffer.data() + buffer.size());
  return coded;
}

TEST(Rans, VariantsOfTheEncoderWriteTheSameBits) {
  if (!rans::has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  for (const VariantCase& one : variant_cases()) {
    EXPECT_EQ(encode_with(rans::encode_groups_avx2, one), encode_with(rans::encode_groups_portable, one));
  }
}

TEST(Rans, EveryVariantOfTheEncoderRefusesSymbolsItsTableDoesNotKnow) {
  const RansTable table = geometric_table(0.0);
  for (size_t at = 0; at < 2 * kRansLanes; ++at) {
    std::vector<uint8_t> symbols(2 * kRansLanes, 0);
    symbols[at] = 9;
    for (const auto encode : {rans::encode_groups_portable, rans::encode_groups_avx2}) {
      if (encode == rans::encode_groups_avx2 && !rans::has_avx2()) continue;
      std::vector<uint16_t> buffer(symbols.size() + rans::kScratchWords);
      rans::States states;
      states.fill(rans::kLowerBound);
      uint16_t* words = buffer.data() + buffer.size();
      EXPECT_FALSE(encode(table, states, words, symbols)) << at;
    }
  }
}

TEST(Rans, VariantsOfTheDecoderReadTheSameAndStopAtTheSamePlace) {
  if (!rans::has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  for (const VariantCase& one : variant_cases()) {
    const Coded coded = encode_with(rans::encode_groups_portable, one);
    const auto bytes = std::as_bytes(std::span(coded.words));
    for (size_t cut = 0; cut <= bytes.size(); cut += 1 + cut / 4) {
      std::vector<std::byte> exact(bytes.begin(), bytes.end() - static_cast<std::ptrdiff_t>(cut));
      exact.resize(exact.size() + rans::kGroupWordBytes);
      const auto run = [&](rans::DecodeGroups decode) {
        rans::States states = coded.states;
        std::vector<uint8_t> symbols(one.symbols.size());
        const std::byte* words = exact.data();
        const std::byte* end = words + (bytes.size() - cut);
        const size_t groups =
            decode(one.table.slots(), states, words, end, symbols.data(), symbols.size() / kRansLanes);
        return std::tuple(states, symbols, words - exact.data(), groups);
      };
      const auto portable = run(rans::decode_groups_portable);
      EXPECT_EQ(run(rans::decode_groups_avx2), portable);
      const size_t read = cut > 0 ? 0 : std::get<3>(portable) * kRansLanes;
      EXPECT_TRUE(std::equal(one.symbols.begin(), one.symbols.begin() + static_cast<std::ptrdiff_t>(read),
                             std::get<1>(portable).begin()));
    }
  }
}

TEST(Rans, FrequenciesSumToTheTotalAndForgetNoSymbolThatOccurs) {
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    std::array<uint64_t, kRansSymbols> counts{};
    for (uint64_t& count : counts) count = random() % 3 == 0 ? uint64_t{1} << random() % 40 : 0;
    const RansFrequencies frequencies = scale_to_frequencies(counts);
    EXPECT_EQ(std::accumulate(frequencies.begin(), frequencies.end(), 0U), kRansTotal);
    for (size_t i = 0; i < kRansSymbols; ++i) {
      EXPECT_EQ(frequencies[i] > 0, counts[i] > 0) << i;
    }
  }
  RansFrequencies wrong{};
  wrong[3] = kRansTotal - 1;
  EXPECT_THROW(RansTable{wrong}, Error);
  wrong[4] = 2;
  EXPECT_THROW(RansTable{wrong}, Error);
}

}  // namespace
}  // namespace scd
