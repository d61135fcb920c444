// Two vectors of eight lanes. The one division of a step is done in floating point and put right: an estimate that is
// off by one shows in the remainder.
#include "common/codec/entropy/rans_steps.h"

#if defined(__AVX2__)
#include <immintrin.h>

namespace scd::rans {
namespace {

constexpr size_t kHalf = kRansLanes / 2;

// By the set of lanes that write a word: which lane's word comes to each of eight places, the last lane's to the last.
constexpr std::array<uint64_t, 256> make_word_sources() {
  std::array<uint64_t, 256> sources{};
  for (size_t lanes = 0; lanes < sources.size(); ++lanes) {
    size_t place = kHalf;
    for (size_t lane = kHalf; lane-- > 0;) {
      if ((lanes >> lane & 1) != 0) sources[lanes] |= uint64_t{lane} << (8 * --place);
    }
  }
  return sources;
}

constexpr std::array<uint64_t, 256> kWordSources = make_word_sources();

// frequencies | starts << 16 of eight symbols.
__m256i ranges_of(const uint32_t* ranges, const uint8_t* symbols) {
  const __m256i indices = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(symbols)));
  return _mm256_i32gather_epi32(reinterpret_cast<const int*>(ranges), indices, 4);
}

// Lanes whose step would not fit into 32 bits write a word, in the order of lanes.
__m256i write_words(__m256i states, __m256i frequencies, uint16_t*& words) {
  const __m256i fits = _mm256_cmpgt_epi32(frequencies, _mm256_srli_epi32(states, 32 - kRansProbabilityBits));
  const auto lanes = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(fits))) ^ 0xFFU;
  const __m256i sources = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(kWordSources[lanes])));
  const __m256i low = _mm256_and_si256(_mm256_permutevar8x32_epi32(states, sources), _mm256_set1_epi32(0xFFFF));
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words - kHalf), packed);
  words -= std::popcount(lanes);
  return _mm256_blendv_epi8(_mm256_srli_epi32(states, 16), states, fits);
}

// states / frequencies < 2^20, so an estimate in 24 bits is off by one at most: half of a state is exact as long as the
// frequency is below 32, and its lost bit is worth 1/2 at most from a frequency of 2 on.
__m256i step(__m256i states, __m256i ranges, __m256i frequencies) {
  const __m256 half_states = _mm256_cvtepi32_ps(_mm256_srli_epi32(states, 1));
  const __m256 half_frequencies = _mm256_mul_ps(_mm256_cvtepi32_ps(frequencies), _mm256_set1_ps(0.5f));
  __m256i quotients = _mm256_cvttps_epi32(_mm256_div_ps(half_states, half_frequencies));
  __m256i rests = _mm256_sub_epi32(states, _mm256_mullo_epi32(quotients, frequencies));
  const __m256i over = _mm256_srai_epi32(rests, 31);  // -1 where the estimate was too large
  quotients = _mm256_add_epi32(quotients, over);
  rests = _mm256_add_epi32(rests, _mm256_and_si256(over, frequencies));
  const __m256i exact = _mm256_cmpgt_epi32(frequencies, rests);  // 0 where it was too small
  quotients = _mm256_add_epi32(quotients, _mm256_add_epi32(exact, _mm256_set1_epi32(1)));
  rests = _mm256_sub_epi32(rests, _mm256_andnot_si256(exact, frequencies));
  const __m256i low = _mm256_add_epi32(rests, _mm256_srli_epi32(ranges, 16));
  return _mm256_add_epi32(_mm256_slli_epi32(quotients, kRansProbabilityBits), low);
}

}  // namespace

bool encode_groups_avx2(const RansTable& table, States& states, uint16_t*& words, std::span<const uint8_t> symbols) {
  auto* lanes = reinterpret_cast<__m256i*>(states.data());
  __m256i first = _mm256_loadu_si256(lanes), second = _mm256_loadu_si256(lanes + 1);
  const __m256i mask = _mm256_set1_epi32(0xFFFF);
  __m256i unknown = _mm256_setzero_si256();
  uint16_t* next = words;
  for (const uint8_t* group = symbols.data() + symbols.size(); group != symbols.data();) {
    group -= kRansLanes;
    const __m256i second_ranges = ranges_of(table.ranges(), group + kHalf);
    const __m256i first_ranges = ranges_of(table.ranges(), group);
    const __m256i second_frequencies = _mm256_and_si256(second_ranges, mask);
    const __m256i first_frequencies = _mm256_and_si256(first_ranges, mask);
    second = step(write_words(second, second_frequencies, next), second_ranges, second_frequencies);
    first = step(write_words(first, first_frequencies, next), first_ranges, first_frequencies);
    const __m256i rarest = _mm256_min_epi32(first_frequencies, second_frequencies);
    unknown = _mm256_or_si256(unknown, _mm256_cmpeq_epi32(rarest, _mm256_setzero_si256()));
  }
  _mm256_storeu_si256(lanes, first);
  _mm256_storeu_si256(lanes + 1, second);
  words = next;
  return _mm256_testz_si256(unknown, unknown) != 0;
}

}  // namespace scd::rans

#else  // never called: has_avx2() is false

namespace scd::rans {
bool encode_groups_avx2(const RansTable& table, States& states, uint16_t*& words, std::span<const uint8_t> symbols) {
  return encode_groups_portable(table, states, words, symbols);
}
}  // namespace scd::rans
#endif
