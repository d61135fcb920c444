#include "common/codec/entropy/rans.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "common/base/error.h"

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
  for (const size_t length : {0U, 1U, 7U, 8U, 9U, 100U, 4096U}) {
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
