// Products on AVX512-BF16. One to four rows (decoding): bounded by memory bandwidth, so the packed weights are read
// once, front to back, while every sum stays in a register; a pair of inputs is broadcast and meets 16 columns at a
// time. More rows (CPUs without AMX): the same with twelve rows a step, bounded by the multiplications.
#include <array>
#include <utility>

#include "kernels/linear_avx512.h"
#include "kernels/scratch.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kStepRows = 12;           // 24 registers of sums
constexpr int64_t kBlockBytes = 640 << 10;  // of x, which stays in the second-level cache
constexpr int64_t kPrefetchBytes = 8192;
constexpr int64_t kChunkBytes = 128 << 10;  // of weights a thread takes at a time

// The sums of all columns of a panel for `Rows` rows of x, packed [rows][padded_in] BF16. Where registers allow, even
// and odd pairs have chains of their own, so that the latency of the multiplication does not show.
template <int Rows>
void multiply_panel(const PanelProduct& product, const uint16_t* packed_x, int64_t first_row, int64_t panel) {
  constexpr int kChains = Rows <= 4 ? 2 : 1;
  const int64_t pairs = product.weights.padded_in() / 2;
  const auto* weights = reinterpret_cast<const char*>(product.weights.panel(panel));
  const auto* x = reinterpret_cast<const int32_t*>(packed_x) + first_row * pairs;
  __m512 sums[kChains][Rows][2];
  for (auto& chain : sums) {
    for (auto& row : chain) row[0] = row[1] = _mm512_setzero_ps();
  }
  for (int64_t pair = 0; pair < pairs; pair += kChains) {
#pragma GCC unroll 2
    for (int chain = 0; chain < kChains; ++chain) {
      const char* from = weights + (pair + chain) * 128;
      if constexpr (Rows <= 4) {
        _mm_prefetch(from + kPrefetchBytes, _MM_HINT_T0);
        _mm_prefetch(from + kPrefetchBytes + 64, _MM_HINT_T0);
      }
      const auto low = reinterpret_cast<__m512bh>(_mm512_load_si512(from));
      const auto high = reinterpret_cast<__m512bh>(_mm512_load_si512(from + 64));
#pragma GCC unroll 12
      for (int row = 0; row < Rows; ++row) {
        const auto input = reinterpret_cast<__m512bh>(_mm512_set1_epi32(x[row * pairs + pair + chain]));
        sums[chain][row][0] = _mm512_dpbf16_ps(sums[chain][row][0], low, input);
        sums[chain][row][1] = _mm512_dpbf16_ps(sums[chain][row][1], high, input);
      }
    }
  }
  const SumWriter writer(product, true);
  for (int row = 0; row < Rows; ++row) {
    for (int half = 0; half < 2; ++half) {
      __m512 sum = sums[0][row][half];
      if constexpr (kChains == 2) sum = _mm512_add_ps(sum, sums[1][row][half]);
      const int64_t column = panel * kPanelColumns + half * 16;
      if (column < writer.columns) writer.write(first_row + row, column, sum);
    }
  }
}

using MultiplyPanel = void (*)(const PanelProduct&, const uint16_t*, int64_t, int64_t);
template <size_t... I>
constexpr std::array<MultiplyPanel, sizeof...(I)> panel_kernels(std::index_sequence<I...>) {
  return {multiply_panel<static_cast<int>(I) + 1>...};
}
constexpr auto kPanelKernels = panel_kernels(std::make_index_sequence<kStepRows>());

// Rows of x per pass over the weights: blocks of equal size, whole steps.
int64_t block_rows(int64_t rows, int64_t row_bytes) {
  const int64_t blocks = (rows * row_bytes + kBlockBytes - 1) / kBlockBytes;
  const int64_t steps = (rows + kStepRows - 1) / kStepRows;
  return (steps + blocks - 1) / blocks * kStepRows;
}

}  // namespace

void multiply_avx512_bf16(const PanelProduct& product) {
  const int64_t rows = product.x.rows;
  const int64_t panels = product.weights.panels();
  const int64_t padded_in = product.weights.padded_in();
  const size_t bytes = static_cast<size_t>(rows * padded_in) * 2;
  auto* x = reinterpret_cast<uint16_t*>(scratch(ScratchSlot::kLinearInput, bytes));
#pragma omp parallel for schedule(static) if (rows > 16 && product.worth_threads())
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < padded_in; column += 32) {
      _mm512_storeu_si512(x + row * padded_in + column, load_bf16(product.x, row, column));
    }
  }
  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / (product.weights.panel_elements() * 2));
  const int64_t block = block_rows(rows, padded_in * 2);
  for (int64_t first = 0; first < rows; first += block) {
    const int64_t last = std::min(rows, first + block);
#pragma omp parallel for schedule(dynamic, chunk) if (product.worth_threads())
    for (int64_t panel = 0; panel < panels; ++panel) {
      for (int64_t row = first; row < last; row += kStepRows) {
        kPanelKernels[static_cast<size_t>(std::min(kStepRows, last - row) - 1)](product, x, row, panel);
      }
    }
  }
}

}  // namespace scd::kernels::cpu
