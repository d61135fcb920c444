// Matrix products on AMX tiles: 32 x 32 sums live in four tile registers while 32 rows of x and a panel of weights pass
// by, one tile load a multiplication. A block of x stays in the second-level cache, a piece of the panel in the first;
// the weights stream from memory once per block of rows, prefetched a piece ahead.
// Loop order after Goto and van de Geijn 2008 (doi:10.1145/1356052.1356053). Bound: tile loads, then memory.
#include "kernels/amx_tiles.h"
#include "kernels/linear_avx512.h"
#include "kernels/scratch.h"

namespace scd::kernels::cpu {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileElements = kTileRows * kInputBlock;  // of BF16: 1 KiB
constexpr int64_t kStripTiles = 2;                          // row tiles of one 32 x 32 block of sums
constexpr int64_t kBlockRows = 256;                         // x kept in the second-level cache
constexpr int64_t kPieceBlocks = 18;                        // input blocks of the panel kept in the first-level cache
constexpr int64_t kPartBlocks = 64;                         // input blocks of x that fit beside the panel
constexpr int64_t kPassRows = 2048;                         // bounds the scratch for x
constexpr int64_t kPanelBlockElements = kInputBlock * kPanelColumns;
constexpr int64_t kSumFloats = kTileRows * kTileRows;

// x in tiles: [row tiles][input blocks][16][32] BF16, zero rows at the end.
void pack_tile_row(const ConstMatrix& x, int64_t first_row, int64_t tile, uint16_t* packed) {
  const int64_t blocks = (x.columns + kInputBlock - 1) / kInputBlock;
  for (int64_t block = 0; block < blocks; ++block) {
    uint16_t* to = packed + (tile * blocks + block) * kTileElements;
    for (int64_t i = 0; i < kTileRows; ++i) {
      const int64_t row = first_row + tile * kTileRows + i;
      const __m512i values = row < x.rows ? load_bf16(x, row, block * kInputBlock) : _mm512_setzero_si512();
      _mm512_store_si512(to + i * kInputBlock, values);
    }
  }
}

struct Operands {
  const uint16_t* x;        // first tile of the strip's first row tile, at this piece
  int64_t x_tile_stride;    // elements from a row tile to the next
  const uint16_t* weights;  // the panel at this piece
  int64_t blocks;           // input blocks to go through
  const char* prefetch;     // what the next piece reads
  int64_t prefetch_lines;   // per input block
};

// Adds to (or starts) the sums [2 * tiles][16][16] of a strip of one or two row tiles.
template <int Tiles>
inline void multiply_strip(const Operands& operands, bool start, float* sums) {
  if (start) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (Tiles == 2) {
      _tile_zero(2);
      _tile_zero(3);
    }
  } else {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + kSumFloats, 64);
    if constexpr (Tiles == 2) {
      _tile_loadd(2, sums + 2 * kSumFloats, 64);
      _tile_loadd(3, sums + 3 * kSumFloats, 64);
    }
  }
  const char* prefetch = operands.prefetch;
  for (int64_t block = 0; block < operands.blocks; ++block) {
    const uint16_t* weights = operands.weights + block * kPanelBlockElements;
    const uint16_t* x = operands.x + block * kTileElements;
    _tile_loadd(4, x, 64);
    _tile_loadd(6, weights, 128);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, weights + 32, 128);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (Tiles == 2) {
      _tile_loadd(5, x + operands.x_tile_stride, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    for (int64_t line = 0; line < operands.prefetch_lines; ++line, prefetch += 64) {
      _mm_prefetch(prefetch, _MM_HINT_T1);
    }
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + kSumFloats, 64);
  if constexpr (Tiles == 2) {
    _tile_stored(2, sums + 2 * kSumFloats, 64);
    _tile_stored(3, sums + 3 * kSumFloats, 64);
  }
}

// One pass: up to kPassRows rows of x, packed, against all panels for the input blocks [first_block, last_block).
struct Pass {
  const PanelProduct& product;
  const uint16_t* packed_x;
  int64_t first_row;
  int64_t rows;
  int64_t first_block;
  int64_t last_block;

  int64_t all_blocks() const { return product.weights.padded_in() / kInputBlock; }
  int64_t packed_blocks() const { return product.weights.panel_elements() / kPanelBlockElements; }
  int64_t row_tiles() const { return (rows + kTileRows - 1) / kTileRows; }
};

void multiply_panel(const Pass& pass, int64_t first_tile, int64_t last_tile, int64_t panel) {
  alignas(64) float sums[kBlockRows / kTileRows * 2 * kSumFloats];
  const uint16_t* weights = pass.product.weights.panel(panel);
  const int64_t strips = (last_tile - first_tile + 1) / kStripTiles;
  const int64_t pieces = (pass.last_block - pass.first_block + kPieceBlocks - 1) / kPieceBlocks;
  const int64_t piece_blocks = (pass.last_block - pass.first_block + pieces - 1) / pieces;
  for (int64_t first = pass.first_block; first < pass.last_block; first += piece_blocks) {
    const int64_t blocks = std::min(piece_blocks, pass.last_block - first);
    const bool last_piece = first + blocks == pass.last_block;
    const int64_t next_block = last_piece ? pass.packed_blocks() + pass.first_block : first + blocks;
    const auto* next = reinterpret_cast<const char*>(weights + next_block * kPanelBlockElements);
    const int64_t lines = (piece_blocks * kPanelBlockElements * 2 / 64 + strips * blocks - 1) / (strips * blocks);
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t tile = first_tile + strip * kStripTiles;
      const Operands operands{.x = pass.packed_x + (tile * pass.all_blocks() + first) * kTileElements,
                              .x_tile_stride = pass.all_blocks() * kTileElements,
                              .weights = weights + first * kPanelBlockElements,
                              .blocks = blocks,
                              .prefetch = next + strip * blocks * lines * 64,
                              .prefetch_lines = lines};
      float* strip_sums = sums + strip * kStripTiles * 2 * kSumFloats;
      if (tile + 1 < last_tile) {
        multiply_strip<2>(operands, first == pass.first_block, strip_sums);
      } else {
        multiply_strip<1>(operands, first == pass.first_block, strip_sums);
      }
    }
  }
  tile_fence();
  const SumWriter writer(pass.product, pass.first_block == 0);
  for (int64_t tile = first_tile; tile < last_tile; ++tile) {
    const float* from = sums + (tile - first_tile) * 2 * kSumFloats;
    const int64_t rows = std::min(kTileRows, pass.rows - tile * kTileRows);
    const int64_t row = pass.first_row + tile * kTileRows;
    write_tile(writer, row, rows, panel * kPanelColumns, from);
    write_tile(writer, row, rows, panel * kPanelColumns + 16, from + kSumFloats);
  }
}

void multiply_pass(const Pass& pass) {
  const int64_t block_tiles = kBlockRows / kTileRows;
  const int64_t row_blocks = (pass.row_tiles() + block_tiles - 1) / block_tiles;
  const int64_t panels = pass.product.weights.panels();
  constexpr int64_t kPanelsAtOnce = 8;
  const int64_t groups = (panels + kPanelsAtOnce - 1) / kPanelsAtOnce;
#pragma omp parallel if (pass.product.worth_threads())
  {
    const AmxTiles tiles;
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < row_blocks * groups; ++item) {
      const int64_t first_tile = item / groups * block_tiles;
      const int64_t first_panel = item % groups * kPanelsAtOnce;
      for (int64_t panel = first_panel; panel < std::min(panels, first_panel + kPanelsAtOnce); ++panel) {
        multiply_panel(pass, first_tile, std::min(pass.row_tiles(), first_tile + block_tiles), panel);
      }
    }
  }
}

}  // namespace

void multiply_amx(const PanelProduct& product) {
  const int64_t blocks = product.weights.padded_in() / kInputBlock;
  // Parts of a long input are added up in y itself, so only an F32 output is split.
  const int64_t parts = product.y.dtype == DType::kF32 ? (blocks + kPartBlocks - 1) / kPartBlocks : 1;
  const int64_t part_blocks = (blocks + parts - 1) / parts;
  const int64_t pass_tiles = (std::min(kPassRows, product.x.rows) + kTileRows - 1) / kTileRows;
  auto* packed = reinterpret_cast<uint16_t*>(
      scratch(ScratchSlot::kLinearInput, static_cast<size_t>(pass_tiles * blocks * kTileElements) * 2));
  for (int64_t first_row = 0; first_row < product.x.rows; first_row += kPassRows) {
    Pass pass{.product = product,
              .packed_x = packed,
              .first_row = first_row,
              .rows = std::min(kPassRows, product.x.rows - first_row),
              .first_block = 0,
              .last_block = 0};
#pragma omp parallel for schedule(static) if (product.worth_threads() && pass.row_tiles() > 1)
    for (int64_t tile = 0; tile < pass.row_tiles(); ++tile) pack_tile_row(product.x, first_row, tile, packed);
    for (; pass.first_block < blocks; pass.first_block = pass.last_block) {
      pass.last_block = std::min(blocks, pass.first_block + part_blocks);
      multiply_pass(pass);
    }
  }
}

}  // namespace scd::kernels::cpu
