// Two vectors of eight lanes: each vector is one chain of dependent steps (a gather alone takes about 20 cycles), so
// two of them are what fills the pipeline.
#include "common/codec/entropy/rans_steps.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace scd::rans {
namespace {

constexpr size_t kHalf = kRansLanes / 2;

// By the set of lanes that take a word: which of the next words each of them gets, a byte a lane.
constexpr std::array<uint64_t, 256> make_word_places() {
  std::array<uint64_t, 256> places{};
  for (size_t lanes = 0; lanes < places.size(); ++lanes) {
    uint64_t next = 0;
    for (size_t lane = 0; lane < kHalf; ++lane) {
      if ((lanes >> lane & 1) != 0) places[lanes] |= next++ << (8 * lane);
    }
  }
  return places;
}

constexpr std::array<uint64_t, 256> kWordPlaces = make_word_places();

__m256i slots_of(const uint32_t* slots, __m256i states) {
  const __m256i mask = _mm256_set1_epi32(kRansTotal - 1);
  return _mm256_i32gather_epi32(reinterpret_cast<const int*>(slots), _mm256_and_si256(states, mask), 4);
}

__m256i step(__m256i slots, __m256i states) {
  const __m256i mask = _mm256_set1_epi32(kRansTotal - 1);
  const __m256i high = _mm256_srli_epi32(states, kRansProbabilityBits);
  const __m256i frequencies = _mm256_and_si256(_mm256_srli_epi32(slots, kRansProbabilityBits), mask);
  const __m256i offsets = _mm256_add_epi32(high, _mm256_and_si256(slots, mask));
  return _mm256_add_epi32(_mm256_mullo_epi32(frequencies, high), offsets);
}

// Lanes below the bound take words, in the order of lanes.
__m256i refill(__m256i states, const std::byte*& words) {
  const __m256i takes = _mm256_cmpeq_epi32(_mm256_srli_epi32(states, 16), _mm256_setzero_si256());
  const auto lanes = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(takes)));
  const __m256i next = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
  const __m256i places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kWordPlaces[lanes])));
  const __m256i longer = _mm256_or_si256(_mm256_slli_epi32(states, 16), _mm256_permutevar8x32_epi32(next, places));
  words += kWordBytes * static_cast<size_t>(std::popcount(lanes));
  return _mm256_blendv_epi8(states, longer, takes);
}

// The high bytes of both halves, in order of lanes.
__m128i symbols_of(__m256i first, __m256i second) {
  const __m256i mixed = _mm256_packus_epi32(_mm256_srli_epi32(first, 24), _mm256_srli_epi32(second, 24));
  const __m256i ordered = _mm256_permute4x64_epi64(mixed, 0b11011000);
  return _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

}  // namespace

size_t decode_groups_avx2(const uint32_t* slots, States& states, const std::byte*& words, const std::byte* end,
                          uint8_t* symbols, size_t groups) {
  auto* lanes = reinterpret_cast<__m256i*>(states.data());
  __m256i first = _mm256_loadu_si256(lanes), second = _mm256_loadu_si256(lanes + 1);
  const std::byte* next = words;
  size_t done = 0;
  for (; done < groups && next <= end; ++done) {
    const __m256i first_slots = slots_of(slots, first), second_slots = slots_of(slots, second);
    first = refill(step(first_slots, first), next);
    second = refill(step(second_slots, second), next);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols), symbols_of(first_slots, second_slots));
    symbols += kRansLanes;
  }
  _mm256_storeu_si256(lanes, first);
  _mm256_storeu_si256(lanes + 1, second);
  words = next;
  return done;
}

}  // namespace scd::rans

#else  // never called: has_avx2() is false

namespace scd::rans {
size_t decode_groups_avx2(const uint32_t* slots, States& states, const std::byte*& words, const std::byte* end,
                          uint8_t* symbols, size_t groups) {
  return decode_groups_portable(slots, states, words, end, symbols, groups);
}
}  // namespace scd::rans
#endif
