// The AMX tile registers of the calling thread, all eight shaped 16 rows x 64 bytes, for the time of a kernel.
// Internal linkage: included only by files compiled for AMX.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace scd::kernels::cpu {
namespace {

class AmxTiles {
 public:
  AmxTiles() {
    // Palette 1 of the Intel SDM: byte 0 the palette, 16..47 bytes a row, 48..63 rows, per tile.
    struct alignas(64) Configuration {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    static_assert(sizeof(Configuration) == 64);
    const Configuration configuration;
    asm volatile("" : : "m"(configuration));
    _tile_loadconfig(&configuration);
  }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
};

// GCC's tile loads and stores do not tell the compiler which memory they touch.
inline void tile_fence() { asm volatile("" : : : "memory"); }

}  // namespace
}  // namespace scd::kernels::cpu
